/** Worker thread of a primary: encodes captures in the order in which they come. */
import { parentPort, workerData } from 'node:worker_threads';
import { PageEncoder } from '../page/page-encoder.js';
import type { EncodedPart, EncodeJob, EncodeResult } from './encoder.js';

const port = parentPort;
if (!port) throw new Error('the encode worker runs as a worker thread only');
const { pageCount } = workerData as { pageCount: number };
const encoder = await PageEncoder.create(pageCount);

port.on('message', (job: EncodeJob) => {
  if (job.reset) encoder.reset();
  const input = {
    generation: job.generation,
    epoch: job.epoch,
    pageIndices: new Uint32Array(job.indices),
    pageBytes: new Uint8Array(job.bytes),
    pageCount: job.pageCount,
    deviceState: job.deviceState,
  };
  const encoded = encoder.encode(input, (part, index, partCount) => {
    port.postMessage({ id: job.id, part, index, partCount } satisfies EncodedPart);
  });
  // The parts have gone one by one.
  const result: EncodeResult = { id: job.id, encoded: { ...encoded, parts: [] } };
  port.postMessage(result);
});
port.postMessage({ id: 0, encoded: null } satisfies EncodeResult);
