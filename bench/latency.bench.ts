/** From the capture of an epoch to its ack, by how many pages it holds, in plain and over TLS. */
import { onStage, sampleStatus, type Stage } from './bench-pool.js';
import { median, type Row } from './row.js';

/** With an epoch long enough for the guest to write that many. */
const CASES = { 100: '50ms', 1_000: '50ms', 5_000: '1000ms' };
const MEASURE_MS = 6_000;

export async function latencyBench(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [pages, epoch] of Object.entries(CASES))
    for (const paired of [false, true]) rows.push(...(await latency(Number(pages), epoch, paired)));
  return rows;
}

function latency(pages: number, epoch: string, paired: boolean): Promise<Row[]> {
  const cmdline = `tick=10 dirty=${pages} pattern=full`;
  const measure = async ({ pool }: Stage): Promise<Row[]> => {
    const samples = await sampleStatus(pool.hosts[0], MEASURE_MS);
    const { commitMs } = samples[samples.length - 1];
    const dirtyPages = median(samples.map((sample) => sample.dirtyPages));
    const name = `capture to ack, ${pages} pages${paired ? ', TLS' : ''}`;
    const reference = `${Math.round(dirtyPages)} dirty pages in the median epoch`;
    return [
      { name: `${name}, p50`, value: commitMs.p50, unit: 'ms', reference },
      { name: `${name}, p99`, value: commitMs.p99, unit: 'ms' },
    ];
  };
  return onStage({ memory: '64MiB', epoch, cmdline }, measure, { paired });
}
