/** The capture worker as the machine sees it: one request at a time, each with a deadline. */
import { Worker } from 'node:worker_threads';
import { CaptureOverflow } from '../capture-overflow.js';
import type { CaptureBuffer, PageRange } from '../machine.js';
import { QemuError } from './qemu-error.js';

const ANSWER_MS_MAX = 15_000;

export type CaptureRequest =
  | { readonly kind: 'restart' }
  | {
      readonly kind: 'capture';
      readonly pageIndices: Uint32Array;
      readonly pageBytes: Uint8Array;
      readonly also: PageRange | null;
    };

export interface Captured {
  readonly kind: 'captured';
  readonly pageCount: number;
  readonly dirtyCount: number;
  readonly findMs: number;
  readonly copyMs: number;
}

export type CaptureReply =
  { readonly kind: 'done' } | { readonly kind: 'overflow'; readonly pageCount: number } | Captured;

export class CaptureThread {
  private readonly worker: Worker;
  private settle: ((reply: CaptureReply) => void) | null = null;
  private reject: ((error: Error) => void) | null = null;
  private failure: Error | null = null;

  static async start(fd: number, bytes: number): Promise<CaptureThread> {
    const worker = new Worker(new URL('./capture-worker.js', import.meta.url), {
      workerData: { fd, bytes },
    });
    const thread = new CaptureThread(worker);
    await thread.answer();
    return thread;
  }

  private constructor(worker: Worker) {
    this.worker = worker;
    worker.on('message', (reply: CaptureReply) => this.settle?.(reply));
    worker.on('error', (cause) => this.fail('its worker failed', cause));
    worker.on('exit', () => this.fail('its worker ended'));
    worker.unref();
  }

  /** What has been written up to now does not count as dirty. */
  async restart(): Promise<void> {
    await this.ask({ kind: 'restart' });
  }

  async capture(into: CaptureBuffer, also: PageRange | null): Promise<Captured> {
    const { pageIndices, pageBytes } = into;
    const reply = await this.ask({ kind: 'capture', pageIndices, pageBytes, also });
    if (reply.kind === 'overflow') throw new CaptureOverflow(reply.pageCount, pageIndices.length);
    if (reply.kind !== 'captured') throw new QemuError('CAPTURE', 'an answer to something else');
    return reply;
  }

  async close(): Promise<void> {
    this.fail('its worker was stopped');
    await this.worker.terminate();
  }

  private ask(request: CaptureRequest): Promise<CaptureReply> {
    const reply = this.answer();
    this.worker.postMessage(request);
    return reply;
  }

  private answer(): Promise<CaptureReply> {
    if (this.failure) return Promise.reject(this.failure);
    if (this.settle) return Promise.reject(new QemuError('CAPTURE', 'one request at a time'));
    return new Promise<CaptureReply>((resolve, reject) => {
      const timer = setTimeout(() => this.fail('no answer in time'), ANSWER_MS_MAX);
      const end = (): void => {
        clearTimeout(timer);
        this.settle = null;
        this.reject = null;
      };
      this.settle = (reply) => {
        end();
        resolve(reply);
      };
      this.reject = (error) => {
        end();
        reject(error);
      };
    });
  }

  private fail(why: string, cause?: unknown): void {
    this.failure ??= new QemuError('CAPTURE', `the capture of a QEMU machine failed: ${why}`, {
      cause,
    });
    this.reject?.(this.failure);
  }
}
