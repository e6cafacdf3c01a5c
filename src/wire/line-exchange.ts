/** One JSON line each way over a connection, bounded in length and time. */
import type { Socket } from 'node:net';
import { MirrorError } from '../core/errors.js';

const LINE_BYTES_MAX = 16 << 10;

/** Codes: BAD_LINE, LINE_TIMEOUT, LINE_CUT, and whatever the other side refused with. */
export class ExchangeError extends MirrorError {}

/** The other side is there, and will not. */
export class RefusalError extends ExchangeError {}

export type Line = Readonly<Record<string, unknown>>;

/** A field of a line; empty if it is not there, or no text. */
export function wordOf(line: Line, key: string): string {
  const value = line[key];
  return typeof value === 'string' ? value : '';
}

/** The next line, as an object; what follows it is dropped. */
export function readLine(socket: Socket, deadlineMs: number): Promise<Line> {
  return new Promise((resolve, reject) => {
    let received = Buffer.alloc(0);
    const settle = (): void => {
      clearTimeout(timer);
      socket.off('data', onData);
      socket.off('close', onClose);
      socket.off('end', onClose);
    };
    const fail = (error: Error): void => {
      settle();
      reject(error);
    };
    const onClose = (): void =>
      fail(new ExchangeError('LINE_CUT', 'the other side hung up without a word'));
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf(0x0a);
      if (end < 0 && received.length <= LINE_BYTES_MAX) return;
      try {
        const line = parsed(received.subarray(0, end < 0 ? received.length : end));
        settle();
        resolve(line);
      } catch (error) {
        fail(error instanceof Error ? error : new Error(String(error)));
      }
    };
    const timer = setTimeout(
      () => fail(new ExchangeError('LINE_TIMEOUT', 'the other side said nothing in time')),
      deadlineMs,
    );
    socket.on('data', onData);
    socket.on('close', onClose);
    socket.on('end', onClose);
    if (socket.destroyed) onClose();
  });
}

function parsed(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    if (bytes.length > LINE_BYTES_MAX) throw new Error('too long');
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new ExchangeError('BAD_LINE', 'what came is not a line of JSON', { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new ExchangeError('BAD_LINE', 'what came is not a JSON object');
  return value as Record<string, unknown>;
}

export function writeLine(socket: Socket, value: object): void {
  socket.write(`${JSON.stringify(value)}\n`);
}

/** Asks, and throws what the other side refused with; the connection is over afterwards. */
export async function askLine(
  socket: Socket,
  request: object,
  deadlineMs: number,
): Promise<Line> {
  try {
    writeLine(socket, request);
    const answer = await readLine(socket, deadlineMs);
    const error = answer['error'] as { code?: unknown; message?: unknown } | undefined;
    if (typeof error?.code === 'string')
      throw new RefusalError(error.code, `the other side says: ${String(error.message)}`);
    return answer;
  } finally {
    socket.destroy();
  }
}

/** Answers and ends; what is never read does not keep the connection. */
export function answerLine(socket: Socket, value: object, deadlineMs: number): void {
  const timer = setTimeout(() => socket.destroy(), deadlineMs);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
  socket.resume();
  socket.end(`${JSON.stringify(value)}\n`);
}
