/** Worker thread of a running QEMU machine: finds and copies pages while the VM stands still. */
import { parentPort, workerData } from 'node:worker_threads';
import { CaptureOverflow } from '../capture-overflow.js';
import type { CaptureReply, CaptureRequest } from './capture-thread.js';
import { RamTracker } from './ram-tracker.js';

const port = parentPort;
if (!port) throw new Error('the capture worker runs as a worker thread only');
const { fd, bytes } = workerData as { fd: number; bytes: number };
const tracker = await RamTracker.create(fd, bytes);
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;

function answer(reply: CaptureReply): void {
  port?.postMessage(reply);
}

function capture({ pageIndices, pageBytes, also }: CaptureRequest & { kind: 'capture' }): void {
  const startedAtMs = nowMs();
  const { dirtyCount, pageCount } = tracker.find(also);
  const foundAtMs = nowMs();
  try {
    tracker.take(pageIndices, pageBytes, pageCount);
  } catch (error) {
    if (!(error instanceof CaptureOverflow)) throw error;
    answer({ kind: 'overflow', pageCount });
    return;
  }
  const findMs = foundAtMs - startedAtMs;
  const copyMs = nowMs() - foundAtMs;
  answer({ kind: 'captured', pageCount, dirtyCount, findMs, copyMs });
  tracker.settle(pageBytes, pageCount);
}

port.on('message', (request: CaptureRequest) => {
  if (request.kind === 'capture') {
    capture(request);
    return;
  }
  tracker.restart();
  answer({ kind: 'done' });
});
answer({ kind: 'done' });
