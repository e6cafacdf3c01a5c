/** A running QEMU machine's capture worker, as its own thread sees it. */
import { Worker } from 'node:worker_threads';
import { CaptureOverflow } from '../capture-overflow.js';
import type { CaptureBuffer, PageRange } from '../machine.js';
import { QemuError } from './qemu-error.js';
import type { FoundBy } from './ram-tracker.js';

const ANSWER_MS_MAX = 15_000;

export interface CaptureWorkerData {
  readonly fd: number;
  readonly bytes: number;
  readonly foundBy: FoundBy;
  /** Counts the requests: the worker sees one come while it reads a checkpoint. */
  readonly bell: Int32Array;
}

export type CaptureRequest =
  | { readonly kind: 'restart' }
  /** QEMU enters COLO on this socket. */
  | { readonly kind: 'open'; readonly socketFd: number }
  | { readonly kind: 'begin' }
  | { readonly kind: 'checkpoint' }
  | { readonly kind: 'go-on' }
  | TakeRequest;

export interface TakeRequest {
  readonly kind: 'take';
  readonly pageIndices: Uint32Array;
  readonly pageBytes: Uint8Array;
  readonly also: PageRange | null;
  /** The VM goes on as soon as its bytes are safe, if a checkpoint has stopped it. */
  readonly andGoOn: boolean;
  /** Looks for pages that COLO missed. */
  readonly audit: boolean;
}

export interface Captured {
  readonly kind: 'captured';
  readonly pageCount: number;
  readonly dirtyCount: number;
  /** By an audit; null without. */
  readonly missed: number | null;
  readonly findMs: number;
  readonly copyMs: number;
  /** What QEMU sent of its devices in the checkpoint that stopped the VM. */
  readonly devices: Uint8Array | null;
  readonly goesOn: boolean;
}

export type CaptureReply =
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'overflow'; readonly pageCount: number }
  | Captured;

export class CaptureThread {
  private readonly worker: Worker;
  private readonly bell: Int32Array;
  /** Those who wait for a reply, in the order of the replies. */
  private readonly waiting: {
    resolve(reply: CaptureReply): void;
    reject(error: Error): void;
    readonly timer: NodeJS.Timeout;
  }[] = [];
  private failure: Error | null = null;

  static async start(file: Omit<CaptureWorkerData, 'bell'>): Promise<CaptureThread> {
    const url = new URL('./capture-worker.js', import.meta.url);
    const bell = new Int32Array(new SharedArrayBuffer(4));
    const workerData: CaptureWorkerData = { ...file, bell };
    const thread = new CaptureThread(new Worker(url, { workerData }), bell);
    await thread.answer();
    return thread;
  }

  private constructor(worker: Worker, bell: Int32Array) {
    this.worker = worker;
    this.bell = bell;
    worker.on('message', (reply: CaptureReply) => this.heard(reply));
    worker.on('error', (cause) => this.fail('its worker failed', cause));
    worker.on('exit', () => this.fail('its worker ended'));
    worker.unref();
  }

  /** What is in memory now does not count as dirty. */
  async restart(): Promise<void> {
    await this.ask({ kind: 'restart' });
  }

  async take(
    { pageIndices, pageBytes }: CaptureBuffer,
    order: { also: PageRange | null; andGoOn: boolean; audit: boolean },
  ): Promise<Captured> {
    const reply = await this.ask({ kind: 'take', pageIndices, pageBytes, ...order });
    if (reply.kind === 'overflow') throw new CaptureOverflow(reply.pageCount, pageIndices.length);
    if (reply.kind !== 'captured') throw new QemuError('CAPTURE', 'an answer to something else');
    return reply;
  }

  /** Settles once QEMU is in COLO and waits for `begin`. */
  async open(socketFd: number): Promise<void> {
    await this.ask({ kind: 'open', socketFd });
  }

  async begin(): Promise<void> {
    await this.ask({ kind: 'begin' });
  }

  /** Settles once the VM stands still; it does so until a `take` or `goOn` lets it. */
  async checkpoint(): Promise<void> {
    await this.ask({ kind: 'checkpoint' });
  }

  async goOn(): Promise<void> {
    await this.ask({ kind: 'go-on' });
  }

  async close(): Promise<void> {
    this.fail('its worker was stopped');
    await this.worker.terminate();
  }

  private ask(request: CaptureRequest): Promise<CaptureReply> {
    const answer = this.answer();
    if (this.failure) return answer;
    this.worker.postMessage(request);
    Atomics.add(this.bell, 0, 1);
    Atomics.notify(this.bell, 0);
    return answer;
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
