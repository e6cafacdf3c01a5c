/**
 * Worker thread of the bench of the COLO reader: reads the same stream either by the reader of the
 * capture worker, which keeps the pages, or by bare reads that drop what they get.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { ColoPages } from '../src/machine/qemu/colo-pages.js';
import { ColoStream } from '../src/machine/qemu/colo-stream.js';
import { nonBlockingRead, ReadWaiter } from '../src/machine/qemu/libc.js';
import { PAGE_BYTES } from '../src/machine/machine.js';

export interface SinkData {
  readonly fd: number;
  readonly kind: 'parser' | 'sink';
  readonly pages: number;
  readonly checkpoints: number;
  readonly bytes: number;
}

const SILENT_MS_MAX = 5_000;
const BUFFER_BYTES = 1 << 20;
const { fd, kind, pages, checkpoints, bytes } = workerData as SinkData;

const waiter = new ReadWaiter(fd);

function parse(): void {
  const marks = new Uint8Array(pages);
  const kept = new ColoPages(Buffer.alloc(pages * PAGE_BYTES), marks);
  const reader = new ColoStream(fd, kept, { ramName: 'ram', msMax: SILENT_MS_MAX });
  const listener = { stopped: () => {}, reading: () => {} };
  for (let read = 0; read < checkpoints; read += 1) {
    marks.fill(0);
    reader.readCheckpoint(listener);
    if (!marks.every(Boolean)) throw new Error('the reader has missed a page');
  }
}

function drop(): void {
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  for (let left = bytes; left > 0; ) {
    const got = nonBlockingRead(fd, buffer);
    if (got > 0) left -= got;
    else if (got === 0 || !waiter.wait(SILENT_MS_MAX)) throw new Error('the stream ended');
  }
}

waiter.wait(SILENT_MS_MAX);
const startedAtMs = performance.now();
if (kind === 'parser') parse();
else drop();
parentPort?.postMessage(performance.now() - startedAtMs);
