/** What both VM processes take, shared pages counted once (PSS), against the guest's memory. */
import { setTimeout as sleep } from 'node:timers/promises';
import { onStage, statusOf } from './bench-pool.js';
import { memoryMb } from './processes.js';
import type { Row } from './row.js';

const GUEST_MB = 64;
const TARGET_MB = 4 * GUEST_MB + 250;
/** A quiet guest, and one that writes nearly all that it has. */
const DIRTY_PAGES = [256, 14_000];
const MEASURE_MS = 4_000;

export async function memoryBench(): Promise<Row[]> {
  if (process.platform !== 'linux') return [];
  const rows: Row[] = [];
  for (const pages of DIRTY_PAGES) rows.push(await pss(pages));
  return rows;
}

function pss(pages: number): Promise<Row> {
  const cmdline = `tick=10 dirty=${pages} pattern=sparse`;
  return onStage({ memory: `${GUEST_MB}MiB`, epoch: '25ms', cmdline }, async ({ pool }) => {
    await sleep(MEASURE_MS);
    const [primary, standby] = await Promise.all(
      pool.hosts.map(async (host) => memoryMb((await statusOf(host)).pid).pss),
    );
    const name = `PSS of both VM processes, ${pages} pages dirty`;
    return {
      ...{ name, value: primary + standby, unit: 'MB' },
      reference: `${primary.toFixed(0)} + ${standby.toFixed(0)}, guest ${GUEST_MB}`,
      target: { atMost: TARGET_MB },
    };
  });
}
