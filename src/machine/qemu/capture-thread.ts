/** The capture worker as the machine sees it: one request at a time, each with a deadline. */
import { Worker } from 'node:worker_threads';
import { CaptureOverflow } from '../capture-overflow.js';
import type { CaptureBuffer, PageRange } from '../machine.js';
import type { ColoFigures } from './colo-reader.js';
import { QemuError } from './qemu-error.js';
import type { FoundBy } from './ram-tracker.js';

const ANSWER_MS_MAX = 15_000;

export interface CaptureWorkerData {
  readonly fd: number;
  readonly bytes: number;
  readonly foundBy: FoundBy;
}

export type CaptureRequest =
  | { readonly kind: 'restart' }
  /** QEMU enters COLO on this socket. */
  | { readonly kind: 'open'; readonly socketFd: number }
  | { readonly kind: 'checkpoint' }
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
  | { readonly kind: 'done' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'devices'; readonly devices: Uint8Array; readonly figures: ColoFigures }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'overflow'; readonly pageCount: number }
  | Captured;

export class CaptureThread {
  /** Of COLO, as of its last checkpoint. */
  coloFigures: ColoFigures | null = null;
  private readonly worker: Worker;
  /** Those who wait for a reply, in the order of the replies. */
  private readonly waiting: {
    resolve(reply: CaptureReply): void;
    reject(error: Error): void;
    readonly timer: NodeJS.Timeout;
  }[] = [];
  private failure: Error | null = null;

  static async start(data: CaptureWorkerData): Promise<CaptureThread> {
    const url = new URL('./capture-worker.js', import.meta.url);
    const thread = new CaptureThread(new Worker(url, { workerData: data }));
    await thread.answer();
    return thread;
  }

  private constructor(worker: Worker) {
    this.worker = worker;
    worker.on('message', (reply: CaptureReply) => this.heard(reply));
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

  /** Settles once QEMU is in COLO and waits for READY. */
  async open(socketFd: number): Promise<void> {
    await this.ask({ kind: 'open', socketFd });
  }

  /** `stopped` settles once the VM stands still, `devices` at the end of the checkpoint. */
  checkpoint(): { stopped: Promise<unknown>; devices: Promise<Uint8Array> } {
    const stopped = this.ask({ kind: 'checkpoint' });
    const devices = this.answer().then((reply) => {
      if (reply.kind !== 'devices') throw new QemuError('CAPTURE', 'an answer to something else');
      this.coloFigures = reply.figures;
      return reply.devices;
    });
    return { stopped, devices };
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
    return new Promise<CaptureReply>((resolve, reject) => {
      const timer = setTimeout(() => this.fail('no answer in time'), ANSWER_MS_MAX);
      this.waiting.push({ resolve, reject, timer });
    });
  }

  private heard(reply: CaptureReply): void {
    if (reply.kind === 'failed') {
      this.fail(reply.reason);
      return;
    }
    const first = this.waiting.shift();
    clearTimeout(first?.timer);
    first?.resolve(reply);
  }

  /** For good: where the worker stands is not known any more. */
  private fail(why: string, cause?: unknown): void {
    this.failure ??= new QemuError('CAPTURE', `the capture of a QEMU machine failed: ${why}`, {
      cause,
    });
    for (const { reject, timer } of this.waiting.splice(0)) {
      clearTimeout(timer);
      reject(this.failure);
    }
  }
}
