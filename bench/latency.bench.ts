/** From the capture of an epoch to its ack, by how many pages it holds. */
import { onStage, sampleStatus } from './bench-pool.js';
import { median, type Row } from './row.js';

const PAGES = [100, 1_000, 5_000];
const MEASURE_MS = 4_000;

export async function latencyBench(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const pages of PAGES) rows.push(...(await latency(pages)));
  return rows;
}

function latency(pages: number): Promise<Row[]> {
  const cmdline = `tick=10 dirty=${pages} pattern=full`;
  return onStage({ memory: '64MiB', epoch: '50ms', cmdline }, async ({ pool }) => {
    const samples = await sampleStatus(pool.hosts[0], MEASURE_MS);
    const { commitMs } = samples[samples.length - 1];
    const dirtyPages = median(samples.map((sample) => sample.dirtyPages));
    const name = `capture to ack, ${pages} pages`;
    const reference = `${Math.round(dirtyPages)} dirty pages in the median epoch`;
    return [
      { name: `${name}, p50`, value: commitMs.p50, unit: 'ms', reference },
      { name: `${name}, p99`, value: commitMs.p99, unit: 'ms' },
    ];
  });
}
