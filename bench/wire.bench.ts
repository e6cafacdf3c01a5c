/** Bytes on the wire for each dirty byte, of a real guest, by what it writes into its pages. */
import { onStage, sampleStatus } from './bench-pool.js';
import type { Row } from './row.js';

const PAGE_BYTES = 4096;
const MEASURE_MS = 4_000;
/** In percent. */
const PATTERNS = { sparse: 10, full: null, random: 101, zero: null } as const;

export async function wireBench(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [pattern, atMost] of Object.entries(PATTERNS)) rows.push(await wire(pattern, atMost));
  return rows;
}

function wire(pattern: string, atMost: number | null): Promise<Row> {
  const cmdline = `tick=10 dirty=256 pattern=${pattern}`;
  return onStage({ memory: '64MiB', epoch: '25ms', cmdline }, async ({ pool }) => {
    const samples = await sampleStatus(pool.hosts[0], MEASURE_MS);
    let wireBytes = 0;
    let dirtyBytes = 0;
    for (const { ratio, dirtyPages } of samples) {
      wireBytes += ratio * dirtyPages * PAGE_BYTES;
      dirtyBytes += dirtyPages * PAGE_BYTES;
    }
    return {
      ...{ name: `wire bytes of a guest: ${pattern}`, value: (wireBytes / dirtyBytes) * 100 },
      ...{ unit: '% of dirty bytes', reference: `${samples.length} epochs` },
      ...(atMost === null ? {} : { target: { atMost } }),
    };
  });
}
