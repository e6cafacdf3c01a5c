/** The third vote: compare-and-swap on a few durable records, for hosts that ask. */
import { mkdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { MirrorError } from '../core/errors.js';
import type { VmRecord } from '../core/record.js';
import { SecureDoor } from '../wire/secure-door.js';
import { Security, TrustError } from '../wire/security.js';
import { TrustKeeper } from '../wire/trust-keeper.js';
import { DirLock } from './dir-lock.js';
import { RecordStore } from './record-store.js';
import { checkProposer, isForced } from './witness-authority.js';
import { LineReader, parseRequest, type WitnessAnswer } from './witness-protocol.js';

const CONNECTIONS_MAX = 1_024;
/** Requests of one connection that have no answer yet. */
const UNANSWERED_MAX = 256;
const UNSENT_BYTES_MAX = 1 << 20;
const FIRST_BYTE_MS_MAX = 5_000;
const JSON_BEGINS = 0x7b;

export interface WitnessOptions {
  readonly name: string;
  readonly stateDir: string;
  /** Where hosts dial it, if not where it listens. */
  readonly advertise: string | null;
  readonly insecure: boolean;
  readonly say: (text: string) => void;
}

export class WitnessServer {
  readonly keeper: TrustKeeper;
  private readonly options: WitnessOptions;
  private readonly store: RecordStore;
  private readonly server: Server;
  private readonly security: Security;
  private readonly door: SecureDoor;
  private readonly sockets = new Set<Socket>();
  private address: string;
  private lock: DirLock | null = null;

  constructor(options: WitnessOptions) {
    this.options = options;
    const { stateDir, say, advertise } = options;
    this.address = advertise ?? '';
    this.store = new RecordStore(stateDir);
    this.security = new Security(options);
    const [security, address] = [this.security, (): string => this.address];
    this.keeper = new TrustKeeper({ security, kind: 'witness', address, say });
    this.door = new SecureDoor({
      ...{ security, keeper: this.keeper, say },
      house: {
        plain: (socket) => this.serve(socket, null),
        vm: () => noVmsHere(),
        known: (socket, peer) => this.serve(socket, peer.name),
        ask: () => noVmsHere(),
      },
    });
    this.server = createServer((socket) => this.accept(socket));
    this.server.maxConnections = CONNECTIONS_MAX;
  }

  /** Claims the state directory, and makes the identity on the first start. */
  claim(): void {
    const { stateDir } = this.options;
    mkdirSync(stateDir, { recursive: true, mode: 0o700 });
    this.lock ??= DirLock.acquire(stateDir);
    this.security.prepare();
  }

  async listen(host: string, port: number): Promise<number> {
    this.claim();
    await this.store.prepare(this.options.say);
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(port, host, resolve);
    });
    const address = this.server.address();
    const bound = typeof address === 'object' && address ? address.port : port;
    const everywhere = ['0.0.0.0', '::'].includes(host);
    const shown = host.includes(':') ? `[${host}]` : host;
    if (this.options.advertise === null && !everywhere) this.address = `${shown}:${bound}`;
    this.keeper.start();
    return bound;
  }

  async close(): Promise<void> {
    this.keeper.stop();
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
    this.lock?.release();
    this.lock = null;
  }

  /** Without TLS a conversation starts at once, with the first request. */
  private accept(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.sockets.delete(socket));
    const timer = setTimeout(() => socket.destroy(), FIRST_BYTE_MS_MAX);
    socket.once('close', () => clearTimeout(timer));
    socket.once('data', (first: Buffer) => {
      clearTimeout(timer);
      socket.pause();
      socket.unshift(first);
      if (first[0] === JSON_BEGINS) this.serve(socket, null);
      else void this.door.accept(socket);
    });
  }

  /** `host`: who has proven to be at the other end; `null`: nobody was asked to. */
  private serve(socket: Socket, host: string | null): void {
    socket.setNoDelay(true);
    socket.setEncoding('utf8');
    const reader = new LineReader();
    let unanswered = 0;
    const refuse = (error: unknown): void => {
      if (!socket.destroyed) this.door.refused(host ?? socket.remoteAddress ?? '', error);
      socket.destroy();
    };
    socket.on('data', (chunk: string) => {
      try {
        this.checkStillTrusted(socket, host);
        for (const line of reader.feed(chunk)) {
          unanswered += 1;
          if (unanswered > UNANSWERED_MAX)
            throw new TrustError('BUSY', 'too many requests at once');
          const answered = this.answer(line, host).then((answer) => {
            unanswered -= 1;
            if (socket.destroyed) return;
            if (socket.writableLength > UNSENT_BYTES_MAX)
              throw new TrustError('BUSY', 'it does not read');
            socket.write(`${JSON.stringify(answer)}\n`);
          });
          answered.catch(refuse);
        }
      } catch (error) {
        refuse(error);
      }
    });
    socket.resume();
  }

  /** The witness may have been paired, or told to forget the host, since the connection came. */
  private checkStillTrusted(socket: Socket, host: string | null): void {
    if (host === null) this.security.checkPlain(socket);
    else if (!this.security.trust.byName(host))
      throw new TrustError('STRANGER', `${host} was forgotten here`);
  }

  /** Throws only on what is no request at all. */
  private async answer(line: string, host: string | null): Promise<WitnessAnswer> {
    const request = parseRequest(line);
    const { id, vmUuid } = request;
    try {
      // Whoever is known may read: a host is asked to stand by before any record names it.
      if (request.op === 'read') {
        const record = await this.store.read(vmUuid);
        return { id, outcome: 'ok', record };
      }
      const { expectRevision, proposal } = request;
      const { won, record } = await this.store.cas(
        ...([vmUuid, expectRevision, proposal] as const),
        (current, named) => {
          if (host === null) return;
          checkProposer(host, current, named, proposal);
          this.sayIfForced(host, current);
        },
      );
      return { id, outcome: won ? 'ok' : 'conflict', record };
    } catch (error) {
      if (error instanceof MirrorError) this.door.refused(host ?? 'a host', error);
      else this.options.say(textOf(error));
      return { id, outcome: 'error', record: null, reason: textOf(error) };
    }
  }

  private sayIfForced(host: string, current: VmRecord | null): void {
    if (!current || !isForced(host, current)) return;
    const { vm, owner } = current;
    this.options.say(`host ${host} claims ${vm} from ${owner} on the word of a person there`);
  }
}

function noVmsHere(): never {
  throw new TrustError('BAD_REQUEST', 'this is a witness: it runs no VMs');
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
