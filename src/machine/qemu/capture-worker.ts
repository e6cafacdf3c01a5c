/** Worker thread of a running QEMU machine: finds and copies pages while the VM stands still. */
import { parentPort, workerData } from 'node:worker_threads';
import { CaptureOverflow } from '../capture-overflow.js';
import type { CaptureReply, CaptureRequest, CaptureWorkerData } from './capture-thread.js';
import { ColoReader } from './colo-reader.js';
import { RamTracker } from './ram-tracker.js';

const port = parentPort;
if (!port) throw new Error('the capture worker runs as a worker thread only');
const { fd, bytes, foundBy } = workerData as CaptureWorkerData;
const tracker = await RamTracker.create(fd, bytes, foundBy);
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
/** How long QEMU may be silent within a checkpoint. */
const COLO_MS_MAX = 2_000;
const RAM_NAME = 'ram';
let colo: ColoReader | null = null;

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

function open(socketFd: number): void {
  colo = new ColoReader(socketFd, { ramName: RAM_NAME, msMax: COLO_MS_MAX });
  colo.readInitial();
  answer({ kind: 'done' });
}

function checkpoint(): void {
  if (!colo) throw new Error('a checkpoint before COLO was entered');
  const devices = colo.readCheckpoint(tracker.marks(), () => answer({ kind: 'stopped' }));
  answer({ kind: 'devices', devices, figures: colo.figures });
}

port.on('message', (request: CaptureRequest) => {
  try {
    if (request.kind === 'capture') capture(request);
    else if (request.kind === 'open') open(request.socketFd);
    else if (request.kind === 'checkpoint') checkpoint();
    else {
      tracker.restart();
      answer({ kind: 'done' });
    }
  } catch (error) {
    answer({ kind: 'failed', reason: error instanceof Error ? error.message : String(error) });
  }
});
answer({ kind: 'done' });
