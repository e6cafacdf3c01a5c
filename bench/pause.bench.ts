/** How long a capture stops the guest, and how much of that is copying. */
import { Bench } from 'tinybench';
import { builtinKernel } from '../src/guest/builtin.js';
import { PAGE_BYTES, type CaptureBuffer } from '../src/machine/machine.js';
import { V86Machine } from '../src/machine/v86/v86-machine.js';
import { median, percentile, type Row } from './row.js';

const MEMORY_BYTES = 64 << 20;
const PAGES = MEMORY_BYTES / PAGE_BYTES;
const DIRTY_PAGES = 300;
const EPOCH_MS = 25;
const WARM_UP_EPOCHS = 40;
const EPOCHS = 200;

export async function pauseBench(): Promise<Row[]> {
  const machine = await V86Machine.create(
    {
      ...{ memoryBytes: MEMORY_BYTES, kernel: builtinKernel(), initrd: null, nics: [] },
      cmdline: `tick=10 dirty=${DIRTY_PAGES} pattern=sparse`,
      disks: [],
    },
    { auditEvery: 0 },
  );
  try {
    await machine.boot();
    machine.resume();
    return rowsOf(await captures(machine), await memcpyMs());
  } finally {
    await machine.stop();
  }
}

interface Pause {
  readonly pauseMs: number;
  readonly copyMs: number;
  readonly pages: number;
}

async function captures(machine: V86Machine): Promise<Pause[]> {
  const into = buffer();
  const pauses: Pause[] = [];
  for (let epoch = 0; epoch < WARM_UP_EPOCHS + EPOCHS; epoch += 1) {
    await new Promise((resolve) => setTimeout(resolve, EPOCH_MS));
    await machine.pause();
    const startedAt = performance.now();
    const { copyMs, pageCount } = await machine.capture(into, null);
    machine.resume();
    const pauseMs = performance.now() - startedAt;
    if (epoch >= WARM_UP_EPOCHS) pauses.push({ pauseMs, copyMs, pages: pageCount });
  }
  return pauses;
}

function buffer(): CaptureBuffer {
  return {
    pageIndices: new Uint32Array(new SharedArrayBuffer(PAGES * 4)),
    pageBytes: new Uint8Array(new SharedArrayBuffer(MEMORY_BYTES)),
    pageCount: 0,
    deviceState: new Uint8Array(0),
  };
}

/** One memcpy of as many bytes. */
async function memcpyMs(): Promise<number> {
  const from = new Uint8Array(DIRTY_PAGES * PAGE_BYTES).fill(1);
  const to = new Uint8Array(new SharedArrayBuffer(from.length));
  const bench = new Bench({ time: 300, throws: true });
  bench.add('memcpy', () => to.set(from));
  await bench.run();
  const result = bench.getTask('memcpy')?.result;
  return result && 'latency' in result ? result.latency.p50 : Number.NaN;
}

function rowsOf(pauses: readonly Pause[], memcpy: number): Row[] {
  const pauseMs = pauses.map((pause) => pause.pauseMs);
  const copyMs = median(pauses.map((pause) => pause.copyMs));
  const pages = median(pauses.map((pause) => pause.pages));
  const reference = `${pages} pages of 64 MB in the median epoch`;
  return [
    { name: 'pause p50', value: median(pauseMs), unit: 'ms', reference, target: { atMost: 2 } },
    { name: 'pause p99', value: percentile(pauseMs, 0.99), unit: 'ms' },
    { name: 'pause: copying', value: copyMs, unit: 'ms', reference: 'median' },
    {
      ...{ name: 'pause: copying against a memcpy', value: copyMs / memcpy, unit: 'x' },
      reference: `memcpy of ${DIRTY_PAGES} pages: ${memcpy.toFixed(3)} ms`,
    },
  ];
}
