/**
 * QEMU's control channel: JSON lines over a unix socket, every command with a deadline. Source: the
 * QEMU Machine Protocol specification (docs/interop/qmp-spec).
 */
import type { Socket } from 'node:net';
import { QemuError } from './qemu-error.js';

const LINE_BYTES_MAX = 4 << 20;
const ANSWER_MS_MAX = 5_000;
const WATCH_MS = 1_000;

export interface QmpEvent {
  readonly event: string;
  readonly data: Record<string, unknown>;
  /** By QEMU's clock of the day, in `ms`. */
  readonly atMs: number;
}

interface Greeting {
  readonly version: { readonly qemu: { major: number; minor: number; micro: number } };
}

interface Message {
  readonly QMP?: Greeting;
  readonly event?: string;
  readonly data?: Record<string, unknown>;
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

interface Waiting {
  readonly command: string;
  readonly timer: NodeJS.Timeout;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class QmpClient {
  onEvent: ((event: QmpEvent) => void) | null = null;
  /** The channel is gone, or QEMU does not answer: told once, never after `close`. */
  onFailure: ((error: QemuError) => void) | null = null;
  version = '';
  private readonly socket: Socket;
  private readonly waiting = new Map<number, Waiting>();
  private text = '';
  private nextId = 1;
  private failure: QemuError | null = null;
  private watching: NodeJS.Timeout | undefined;
  private onGreeting: ((greeting: Greeting) => void) | null = null;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.take(chunk));
    socket.on('error', () => {});
    socket.on('close', () => this.fail(new QemuError('QMP_CLOSED', 'QEMU closed its channel')));
  }

  /** On a connection that QEMU has just opened. */
  static async open(socket: Socket): Promise<QmpClient> {
    const client = new QmpClient(socket);
    const greeting = await new Promise<Greeting>((resolve, reject) => {
      const late = new QemuError('QMP_TIMEOUT', `no greeting within ${ANSWER_MS_MAX} ms`);
      const timer = setTimeout(() => reject(late), ANSWER_MS_MAX);
      client.onGreeting = (told) => {
        clearTimeout(timer);
        resolve(told);
      };
    });
    const { major, minor, micro } = greeting.version.qemu;
    client.version = `${major}.${minor}.${micro}`;
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Rejects with `QMP_ERROR` if QEMU refuses, `QMP_TIMEOUT` or `QMP_CLOSED` if it is no more. */
  execute(command: string, args: object = {}, msMax: number = ANSWER_MS_MAX): Promise<unknown> {
    if (this.failure) return Promise.reject(this.failure);
    const id = this.nextId;
    this.nextId += 1;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.fail(new QemuError('QMP_TIMEOUT', `no answer to ${command} within ${msMax} ms`));
      }, msMax);
      this.waiting.set(id, { command, timer, resolve, reject });
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  /** Asks now and then, so that a QEMU that answers no more is noticed though nobody needs it. */
  watch(): void {
    this.watching = setInterval(() => {
      if (this.waiting.size === 0) this.execute('query-status').catch(() => {});
    }, WATCH_MS);
    this.watching.unref();
  }

  close(): void {
    this.onFailure = null;
    this.onEvent = null;
    this.fail(new QemuError('QMP_CLOSED', 'the channel to QEMU was closed'));
    this.socket.destroy();
  }

  private take(chunk: string): void {
    this.text += chunk;
    for (let end = this.text.indexOf('\n'); end !== -1; end = this.text.indexOf('\n')) {
      const line = this.text.slice(0, end);
      this.text = this.text.slice(end + 1);
      this.handle(line);
    }
    if (this.text.length > LINE_BYTES_MAX)
      this.fail(new QemuError('QMP_PROTOCOL', `a line of over ${LINE_BYTES_MAX} bytes`));
  }

  private handle(line: string): void {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch {
      this.fail(new QemuError('QMP_PROTOCOL', `no JSON: ${line.slice(0, 80)}`));
      return;
    }
    if (message.QMP) this.onGreeting?.(message.QMP);
    else if (message.event !== undefined) this.tell(message.event, message);
    else this.settle(message);
  }

  private tell(event: string, { data = {}, timestamp }: Message): void {
    const { seconds, microseconds } = timestamp ?? { seconds: 0, microseconds: 0 };
    this.onEvent?.({ event, data, atMs: seconds * 1_000 + microseconds / 1_000 });
  }

  private settle(message: Message): void {
    const waiting = this.waiting.get(message.id ?? 0);
    if (!waiting) return;
    this.waiting.delete(message.id ?? 0);
    clearTimeout(waiting.timer);
    const { error } = message;
    if (error) waiting.reject(new QemuError('QMP_ERROR', `${waiting.command}: ${error.desc}`));
    else waiting.resolve(message.return);
  }

  private fail(error: QemuError): void {
    if (this.failure) return;
    this.failure = error;
    clearInterval(this.watching);
    for (const { timer, reject } of this.waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.waiting.clear();
    this.onFailure?.(error);
  }
}
