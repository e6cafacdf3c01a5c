/** Hosts in small for tests of identity and trust: a port, a door, a keeper, on a folder each. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MirrorError } from '../../src/core/errors.js';
import { SecureDoor } from '../../src/wire/secure-door.js';
import { Security } from '../../src/wire/security.js';
import { TrustKeeper } from '../../src/wire/trust-keeper.js';
import { dialPinned } from '../../src/wire/dial.js';
import { askLine, type Line } from '../../src/wire/line-exchange.js';
import { preambleOf } from '../../src/wire/preamble.js';
import type { Validity } from '../../src/wire/certificate.js';
import { within } from '../within.js';

export const ANSWER_MS = 3_000;

export interface MemberOptions {
  readonly insecure?: boolean;
  /** Of its certificate. */
  readonly validity?: Validity;
}

export class Member {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-trust-'));
  readonly said: string[] = [];
  readonly asked: { peer: string; request: Line }[] = [];
  /** Connections that came in plain and were let in. */
  readonly plain: Socket[] = [];
  readonly security: Security;
  readonly keeper: TrustKeeper;
  readonly door: SecureDoor;
  address = '';
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(name: string, options: MemberOptions) {
    this.security = new Security({
      ...{ stateDir: this.dir, name, insecure: options.insecure ?? false },
    });
    if (options.validity) this.security.identities.make(name, options.validity);
    const { security } = this;
    const say = (text: string): void => void this.said.push(text);
    this.keeper = new TrustKeeper({ security, kind: 'host', address: () => this.address, say });
    this.door = new SecureDoor({
      ...{ security, keeper: this.keeper, say },
      house: {
        plain: (socket) => void this.plain.push(socket.resume()),
        vm: (socket) => socket.destroy(),
        known: (socket) => void socket.pipe(socket),
        ask: (peer, request) => {
          this.asked.push({ peer: peer.name, request });
          return Promise.resolve({ heard: request['op'] });
        },
      },
    });
    this.server = createServer((socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      void this.door.accept(socket);
    });
  }

  static async start(name: string, options: MemberOptions = {}): Promise<Member> {
    const member = new Member(name, options);
    member.security.prepare();
    await new Promise<void>((resolve) => member.server.listen(0, '127.0.0.1', resolve));
    member.address = `127.0.0.1:${(member.server.address() as AddressInfo).port}`;
    return member;
  }

  get connections(): number {
    return this.sockets.size;
  }

  get fingerprint(): string {
    return this.security.identity().certificate.fingerprint;
  }

  /** `this` runs `mirror join` with a token of `giver`. */
  async join(giver: Member): Promise<void> {
    await this.keeper.pairing.join(giver.address, giver.keeper.pairing.token(60_000).token);
  }

  /** Asks a peer something, as its daemon would. */
  async ask(peer: Member): Promise<unknown> {
    const known = this.security.trust.byName(peer.security.name);
    if (!known) throw new Error('not paired');
    const { socket } = await dialPinned(this.security, known, callTo(peer));
    return askLine(socket, { op: 'greet' }, ANSWER_MS);
  }

  close(): void {
    this.keeper.stop();
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export function callTo({ address }: { address: string }, kind: 'control' | 'witness' = 'control') {
  return { address, preamble: preambleOf(kind), deadlineMs: ANSWER_MS };
}

/** Hosts a and b that know each other. */
export async function pairOfHosts(): Promise<[Member, Member]> {
  const [a, b] = [await Member.start('a'), await Member.start('b')];
  await a.join(b);
  return [a, b];
}

export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return '';
  } catch (error) {
    return (error as MirrorError).code;
  }
}

/** Sends raw bytes to a port; resolves to what came back once it is hung up on. */
export function hungUpOn(address: string, bytes: string | Buffer, ms = 10_000): Promise<string> {
  const [host, port] = address.split(':');
  const over = new Promise<string>((resolve) => {
    let heard = '';
    const socket = connect(Number(port), host, () => void socket.write(bytes));
    socket.on('data', (chunk: Buffer) => {
      heard += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(heard));
  });
  return within(ms, 'the end of a bad connection', over);
}
