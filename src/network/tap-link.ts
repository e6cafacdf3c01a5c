/** A NIC's cable into a bridge of the host, by a TAP interface of its own. */
import { closeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { NetworkError } from './network-error.js';
import type { NicLink, ReadyLink } from './nic-link.js';
import { bringUp, openTap, wake, wakeFd, writeTap } from './tap-device.js';
import type { TapWorkerData } from './tap-worker.js';

const START_MS_MAX = 5_000;

export class TapLink implements NicLink, ReadyLink {
  onFrame: ((frame: Uint8Array) => void) | null = null;
  readonly resets = false;
  /** Name of the interface. */
  readonly name: string;
  framesDropped = 0;
  private readonly fd: number;
  private readonly wakeFd = wakeFd();
  private readonly waitingBytes = new Int32Array(new SharedArrayBuffer(4));
  private readonly worker: Worker;
  private state: 'ready' | 'up' | 'closed' = 'ready';

  static async open(bridge: string): Promise<TapLink> {
    const link = new TapLink(openTap(bridge));
    await new Promise<void>((resolve, reject) => {
      const late = new NetworkError('TAP_FAILED', `tap:${bridge}: its worker does not start`);
      const timer = setTimeout(() => reject(late), START_MS_MAX);
      link.worker.once('online', () => {
        clearTimeout(timer);
        resolve();
      });
    });
    return link;
  }

  private constructor({ fd, name }: { fd: number; name: string }) {
    this.fd = fd;
    this.name = name;
    const { wakeFd, waitingBytes } = this;
    const data: TapWorkerData = { fd, wakeFd, waitingBytes };
    this.worker = new Worker(new URL('./tap-worker.js', import.meta.url), { workerData: data });
    this.worker.on('message', (batch: Uint8Array) => this.received(batch));
    this.worker.on('error', () => {}); // 'exit' follows.
    this.worker.once('exit', () => this.ended());
    this.worker.unref();
  }

  get connected(): boolean {
    return this.state === 'up';
  }

  plugIn(): NicLink {
    if (this.state !== 'ready') throw new NetworkError('TAP_FAILED', `${this.name} is in use`);
    bringUp(this.name);
    this.state = 'up';
    return this;
  }

  send(frame: Uint8Array): void {
    if (this.state !== 'up' || !writeTap(this.fd, frame)) this.framesDropped += 1;
  }

  close(): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    wake(this.wakeFd);
  }

  private received(batch: Uint8Array): void {
    Atomics.sub(this.waitingBytes, 0, batch.length);
    const bytes = Buffer.from(batch.buffer, batch.byteOffset, batch.length);
    for (let at = 0; at < bytes.length;) {
      const length = bytes.readUInt32LE(at);
      if (this.state === 'up') this.onFrame?.(batch.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
  }

  /** Only now does nobody use the descriptors any more. */
  private ended(): void {
    this.state = 'closed';
    closeSync(this.fd);
    closeSync(this.wakeFd);
  }
}
