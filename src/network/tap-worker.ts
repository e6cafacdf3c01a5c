/**
 * Worker thread of a TAP link: waits for frames, for Node's own streams refuse a TAP. Frames go to
 * the main thread in batches: 4-byte little-endian length + frame, each.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { readTap, waitReadable } from './tap-device.js';

const port = parentPort;
if (!port) throw new Error('the TAP worker runs as a worker thread only');

export interface TapWorkerData {
  readonly fd: number;
  readonly wakeFd: number;
  /** Bytes handed over and not yet taken, in its one element. */
  readonly waitingBytes: Int32Array;
}

const BATCH_BYTES = 128 << 10;
const FRAME_BYTES_MAX = 65_536;
/** Past this the kernel's own queue fills and drops, as any NIC's does. */
const WAITING_BYTES_MAX = 4 << 20;
const REST_MS = 1;
const WAIT_MS_MAX = 10_000;

const { fd, wakeFd, waitingBytes } = workerData as TapWorkerData;
const scratch = new Uint8Array(FRAME_BYTES_MAX);

function batch(): Uint8Array | null {
  let length = readTap(fd, scratch);
  if (length === 0) return null;
  const bytes = Buffer.allocUnsafeSlow(BATCH_BYTES + FRAME_BYTES_MAX + 4);
  let at = 0;
  while (length > 0) {
    bytes.writeUInt32LE(length, at);
    bytes.set(scratch.subarray(0, length), at + 4);
    at += 4 + length;
    length = at < BATCH_BYTES ? readTap(fd, scratch) : 0;
  }
  return new Uint8Array(bytes.buffer.slice(0, at));
}

for (;;) {
  const [woken, readable] = waitReadable([wakeFd, fd], WAIT_MS_MAX);
  if (woken) break;
  if (!readable) continue;
  if (Atomics.load(waitingBytes, 0) > WAITING_BYTES_MAX) {
    Atomics.wait(waitingBytes, 0, Atomics.load(waitingBytes, 0), REST_MS);
    continue;
  }
  const frames = batch();
  if (frames) {
    Atomics.add(waitingBytes, 0, frames.length);
    port.postMessage(frames, [frames.buffer as ArrayBuffer]);
  } else Atomics.wait(waitingBytes, 0, Atomics.load(waitingBytes, 0), REST_MS);
}
