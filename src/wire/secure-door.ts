/**
 * The port of a host or a witness: reads what a connection is for, has it prove who it is, and
 * hands it on. Whatever is refused is told once, bounded, and takes nothing with it.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { MirrorError } from '../core/errors.js';
import type { Certificate } from './certificate.js';
import { HANDSHAKE_MS_MAX } from './dial.js';
import { Doorway, sourceOf } from './doorway.js';
import { answerLine, readLine, type Line } from './line-exchange.js';
import { PreambleError, readPreamble, type ReceivedPreamble } from './preamble.js';
import { RefusalLog } from './refusal-log.js';
import type { Security } from './security.js';
import { startTls, type Secured } from './tls.js';
import type { TrustKeeper } from './trust-keeper.js';
import type { Peer } from './trust-store.js';

const PREAMBLE_MS_MAX = 5_000;
const REQUEST_MS_MAX = 5_000;
const LAST_WORDS_MS_MAX = 1_000;

/** What is behind the door; each may throw to refuse. */
export interface House {
  /** A connection without TLS, where one is allowed. */
  plain(socket: Socket, preamble: ReceivedPreamble): void;
  /** TLS follows, but elsewhere: in the process that `ticket` was given for. */
  vm(socket: Socket, preamble: ReceivedPreamble): void;
  /** A conversation with somebody who is known here. */
  known(socket: TLSSocket, peer: Peer): void;
  /** One request of somebody who is known here, and its answer. */
  ask(peer: Peer, request: Line): Promise<object>;
}

export interface DoorOptions {
  readonly security: Security;
  readonly keeper: TrustKeeper;
  readonly house: House;
  readonly say: (text: string) => void;
}

export class SecureDoor {
  private readonly options: DoorOptions;
  private readonly doorway = new Doorway();
  private readonly refusals: RefusalLog;

  constructor(options: DoorOptions) {
    this.options = options;
    this.refusals = new RefusalLog(options.say);
  }

  async accept(socket: Socket): Promise<void> {
    socket.on('error', () => {});
    const source = sourceOf(socket);
    const leave = this.doorway.enter(source);
    if (!leave) {
      socket.destroy();
      this.refusals.note(source, 'BUSY', 'too many connections that prove nothing');
      return;
    }
    try {
      await this.receive(socket, await readPreamble(socket, PREAMBLE_MS_MAX), leave);
    } catch (error) {
      socket.destroy();
      this.refused(source, error);
    } finally {
      leave();
    }
  }

  /** Also for what came by another way than this door. */
  refused(source: string, error: unknown): void {
    // Somebody looked whether the port is open.
    if (error instanceof PreambleError && error.code === 'PREAMBLE_CUT') return;
    if (error instanceof MirrorError) this.refusals.note(source, error.code, error.message);
  }

  private async receive(
    socket: Socket,
    preamble: ReceivedPreamble,
    leave: () => void,
  ): Promise<void> {
    const { security, house } = this.options;
    if (!preamble.tls) {
      security.checkPlain(socket);
      return house.plain(socket, preamble);
    }
    if (preamble.kind === 'vm') return house.vm(socket, preamble);
    const secured = await startTls(socket, 'server', security.identity(), HANDSHAKE_MS_MAX);
    // Who is known does not count among those that are not.
    if (this.knownAs(secured) !== null) leave();
    try {
      if (preamble.kind === 'witness') this.converse(secured);
      else await this.request(secured);
    } catch (error) {
      // They hear why, for as long as they listen.
      answerLine(secured.socket, { error: describe(error) }, LAST_WORDS_MS_MAX);
      this.refused(this.whoIs(secured), error);
    }
  }

  private converse({ socket, certificate }: Secured): void {
    this.options.house.known(socket, this.options.security.recognise(certificate));
  }

  private async request({ socket, certificate }: Secured): Promise<void> {
    const request = await readLine(socket, REQUEST_MS_MAX);
    answerLine(socket, await this.answer(certificate, request), LAST_WORDS_MS_MAX);
  }

  private knownAs({ certificate }: Secured): Peer | null {
    return this.options.security.trust.byFingerprint(certificate.fingerprint);
  }

  private whoIs(secured: Secured): string {
    const peer = this.knownAs(secured);
    const source = sourceOf(secured.socket);
    return peer ? `${peer.kind} ${peer.name} at ${source}` : source;
  }

  private async answer(certificate: Certificate, request: Line): Promise<object> {
    const { security, keeper, house } = this.options;
    if (request['op'] === 'join') return keeper.pairing.joined(certificate, request);
    const peer = security.recognise(certificate);
    if (request['op'] === 'exchange') return keeper.exchanged(peer, certificate, request);
    return house.ask(peer, request);
  }
}

function describe(error: unknown): { code: string; message: string } {
  if (error instanceof MirrorError) return { code: error.code, message: error.message };
  return { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) };
}
