/**
 * The first bytes of a connection to a host's port, in plain: which versions the caller speaks, and
 * which VM the connection is for, so that the daemon can hand the socket to that VM's process.
 *
 *     'MIRR', u16 length of the rest (<= 1 KiB), msgpack map
 */
import type { Socket } from 'node:net';
import { Packr, Unpackr } from 'msgpackr';
import { MirrorError } from '../core/errors.js';

export interface Preamble {
  readonly versions: readonly number[];
  readonly kind: 'control' | 'vm' | 'witness';
  readonly vmUuid: string;
  readonly vmName: string;
  readonly role: 'owner' | 'observer';
  /** TLS follows at once. */
  readonly tls?: true;
  /** For `vm` with TLS: the daemon's permission, given over a connection of its own. */
  readonly ticket?: string;
}

/** For connections that are not about one VM. */
export function preambleOf(kind: 'control' | 'witness'): Preamble {
  return { versions: [1], kind, vmUuid: '', vmName: '', role: 'observer' };
}

/** A preamble as it came, with what arrived behind it and must travel with a handed socket. */
export interface ReceivedPreamble extends Preamble {
  /** For `vm`: bytes already read; `unshift` them where the socket goes. Empty for `control`. */
  readonly rest: Buffer;
}

export class PreambleError extends MirrorError {}

const MAGIC = Buffer.from('MIRR');
const HEAD_BYTES = MAGIC.length + 2;
const BODY_BYTES_MAX = 1 << 10;
const VERSIONS_MAX = 16;
const KINDS = ['control', 'vm', 'witness'] as const;
const PLAIN = {
  useRecords: false,
  variableMapSize: true,
  maxSharedStructures: 0,
  maxOwnStructures: 0,
} as const;

export function encodePreamble(preamble: Preamble): Buffer {
  const { versions, kind, vmUuid, vmName, role, tls, ticket } = preamble;
  const body = new Packr(PLAIN).pack({
    ...{ versions, kind, vmUuid, vmName, role },
    ...secureFields(tls, ticket),
  });
  if (body.length > BODY_BYTES_MAX)
    throw new PreambleError('PREAMBLE_TOO_LONG', 'the preamble is too long to send');
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt16LE(body.length, MAGIC.length);
  return Buffer.concat([head, body]);
}

/** The preamble at the start of `bytes` and how long it is, or `null` if more bytes are needed. */
export function decodePreamble(bytes: Buffer): { preamble: Preamble; byteCount: number } | null {
  const magicSeen = bytes.subarray(0, MAGIC.length);
  if (!magicSeen.equals(MAGIC.subarray(0, magicSeen.length)))
    throw new PreambleError('PREAMBLE_MAGIC', 'the caller does not speak this protocol');
  if (bytes.length < HEAD_BYTES) return null;
  const bodyBytes = bytes.readUInt16LE(MAGIC.length);
  if (bodyBytes > BODY_BYTES_MAX)
    throw new PreambleError('PREAMBLE_TOO_LONG', `preamble claims ${bodyBytes} bytes`);
  const byteCount = HEAD_BYTES + bodyBytes;
  if (bytes.length < byteCount) return null;
  let value: unknown;
  try {
    value = new Unpackr(PLAIN).unpack(bytes.subarray(HEAD_BYTES, byteCount));
  } catch (cause) {
    throw new PreambleError('PREAMBLE_BODY', 'preamble does not decode', { cause });
  }
  return { preamble: checked(value), byteCount };
}

function checked(value: unknown): Preamble {
  const bad = (what: string): PreambleError =>
    new PreambleError('PREAMBLE_BODY', `preamble with a bad ${what}`);
  if (typeof value !== 'object' || value === null) throw bad('body');
  const { versions, vmUuid, vmName, role, tls, ticket } = value as Record<string, unknown>;
  const kind = KINDS.find((known) => known === (value as Record<string, unknown>)['kind']);
  const isVersion = (v: unknown): v is number => Number.isInteger(v) && Number(v) > 0;
  if (!Array.isArray(versions) || versions.length > VERSIONS_MAX || !versions.every(isVersion))
    throw bad('list of versions');
  if (kind === undefined) throw bad('kind');
  if (role !== 'owner' && role !== 'observer') throw bad('role');
  if (typeof vmUuid !== 'string') throw bad('vmUuid');
  if (typeof vmName !== 'string') throw bad('vmName');
  if (tls !== undefined && tls !== true) throw bad('tls');
  if (ticket !== undefined && typeof ticket !== 'string') throw bad('ticket');
  return { versions, kind, vmUuid, vmName, role, ...secureFields(tls, ticket) };
}

/** Absent where they do not apply, so that a plain preamble is what it always was. */
function secureFields(tls?: true, ticket?: string): Pick<Preamble, 'tls' | 'ticket'> {
  return { ...(tls === undefined ? {} : { tls }), ...(ticket === undefined ? {} : { ticket }) };
}

/**
 * Reads the preamble. A `vm` socket is then no longer read here at all, so that it can be sent to
 * another process; a `control` socket is paused, with what follows unshifted.
 */
export function readPreamble(socket: Socket, deadlineMs: number): Promise<ReceivedPreamble> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    const settle = (): void => {
      clearTimeout(timer);
      socket.off('data', onData);
      socket.off('error', onError);
      socket.off('close', onClose);
      socket.pause();
    };
    const onError = (error: Error): void => {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const onClose = (): void =>
      onError(new PreambleError('PREAMBLE_CUT', 'the caller hung up before its preamble'));
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      try {
        const decoded = decodePreamble(received);
        if (decoded === null) return;
        settle();
        const rest = received.subarray(decoded.byteCount);
        const handed = decoded.preamble.kind === 'vm';
        if (handed) stopReading(socket);
        else if (rest.length > 0) socket.unshift(rest);
        resolve({ ...decoded.preamble, rest: handed ? rest : Buffer.alloc(0) });
      } catch (error) {
        onError(error instanceof Error ? error : new Error(String(error)));
      }
    };
    const timer = setTimeout(
      () => onError(new PreambleError('PREAMBLE_TIMEOUT', 'no preamble came in time')),
      deadlineMs,
    );
    socket.on('error', onError);
    socket.on('close', onClose);
    socket.on('data', onData);
    socket.resume();
  });
}

/**
 * `pause()` leaves the handle reading until its buffer is full; bytes that it took after the socket
 * was sent on would be lost. There is no public call for this.
 */
function stopReading(socket: Socket): void {
  const { _handle: handle } = socket as unknown as {
    _handle?: { readStop(): number; reading: boolean } | null;
  };
  // The stream reads ahead by itself, and would start the handle again.
  socket._read = () => {};
  if (!handle) return;
  handle.readStop();
  handle.reading = false;
}
