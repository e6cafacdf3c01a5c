/**
 * A conversation between two VM processes over one socket: messages in order, bounded in what it
 * queues, over at the first damaged frame. It ends once, and says why.
 */
import type { Socket } from 'node:net';
import { MirrorError } from '../core/errors.js';
import { FrameError, type FrameCodec } from './frame.js';
import { FrameReader } from './frame-reader.js';
import { checkHeader, codeOf, decodeMessage, encodeMessage, placeOf } from './message-codec.js';
import type { VmMessage } from './vm-messages.js';

const NO_BYTES = new Uint8Array(0);
/** How long the last words of a session may take to leave. */
const CLOSE_DEADLINE_MS = 1_000;

export interface SessionOptions {
  /** Most bytes that may wait to be sent; more ends the session with `SESSION_OVERFLOW`. */
  readonly sendBytesMax: number;
}

export class SessionError extends MirrorError {}

export class Session {
  onMessage: ((message: VmMessage, payload: Uint8Array) => void) | null = null;
  /** Called once, never from within `send` or `close`; `null` for an orderly end. */
  onClose: ((reason: Error | null) => void) | null = null;
  /** Everything queued has been handed to the system. */
  onDrain: (() => void) | null = null;
  private readonly socket: Socket;
  private readonly codec: FrameCodec;
  private readonly options: SessionOptions;
  private readonly reader: FrameReader;
  private state: 'new' | 'open' | 'closing' | 'closed' = 'new';
  private reason: Error | null = null;

  constructor(socket: Socket, codec: FrameCodec, options: SessionOptions) {
    this.socket = socket;
    this.codec = codec;
    this.options = options;
    this.reader = new FrameReader(codec, checkHeader);
    socket.setNoDelay(true);
    socket.on('error', (error) => this.fail(error));
    socket.on('close', () => this.finish());
    socket.on('drain', () => this.onDrain?.());
  }

  get queuedBytes(): number {
    return this.socket.writableLength;
  }

  /** Begins to read; set the handlers first. */
  start(): void {
    if (this.state !== 'new') return;
    this.state = 'open';
    if (this.socket.destroyed) {
      setImmediate(() => this.finish());
      return;
    }
    this.socket.on('data', (chunk: Buffer) => this.receive(chunk));
    this.socket.on('end', () => this.ended());
    this.socket.resume();
  }

  /** `payload` must not change until it has left; a session that is over ignores it. */
  send(message: VmMessage, payload: Uint8Array = NO_BYTES): void {
    if (this.state === 'closing' || this.state === 'closed') return;
    const pieces = encodeMessage(message, payload);
    const header = this.codec.encodeHeader(codeOf(message), placeOf(message), pieces);
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, header.length);
    if (this.queuedBytes + bytes > this.options.sendBytesMax) {
      const what = `the peer takes nothing: ${this.queuedBytes} bytes wait`;
      this.fail(new SessionError('SESSION_OVERFLOW', what));
      return;
    }
    this.socket.cork();
    this.socket.write(header);
    for (const piece of pieces) this.socket.write(piece);
    this.socket.uncork();
  }

  /** Sends what is queued, within a deadline, and ends. Nothing is received any more. */
  close(): void {
    if (this.state === 'closing' || this.state === 'closed') return;
    this.state = 'closing';
    this.socket.removeAllListeners('data');
    this.socket.resume();
    this.socket.end();
    const timer = setTimeout(() => this.socket.destroy(), CLOSE_DEADLINE_MS);
    timer.unref();
    this.socket.once('close', () => clearTimeout(timer));
    if (this.socket.destroyed) setImmediate(() => this.finish());
  }

  private receive(chunk: Buffer): void {
    if (this.state !== 'open') return;
    this.reader.feed(chunk);
    while (this.state === 'open') {
      const received = this.nextMessage();
      if (received === null) return;
      this.onMessage?.(received.message, received.payload);
    }
  }

  private nextMessage(): { message: VmMessage; payload: Uint8Array } | null {
    try {
      const frame = this.reader.next();
      return frame && decodeMessage(frame.header, frame.payload);
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
      return null;
    }
  }

  /** The peer is gone: what still waits to be sent has nobody to read it. */
  private ended(): void {
    if (this.state === 'open' && !this.reader.idle)
      this.fail(new FrameError('FRAME_TRUNCATED', 'the peer hung up in the middle of a frame'));
    else this.socket.destroy();
  }

  private fail(error: Error): void {
    if (this.state === 'closed') return;
    if (this.state !== 'closing') this.reason ??= error;
    this.state = 'closing';
    this.socket.destroy();
  }

  private finish(): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    this.onClose?.(this.reason);
  }
}
