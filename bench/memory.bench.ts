/** What both VM processes take, shared pages counted once (PSS), against the guest's memory. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmStatus } from '../src/host/vm-status.js';
import { onStage, VM } from './bench-pool.js';
import type { Row } from './row.js';

const GUEST_MB = 64;
const TARGET_MB = 4 * GUEST_MB + 250;
const MEASURE_MS = 4_000;

export async function memoryBench(): Promise<Row[]> {
  if (process.platform !== 'linux') return [];
  const cmdline = 'tick=10 dirty=256 pattern=sparse';
  return onStage({ memory: `${GUEST_MB}MiB`, epoch: '25ms', cmdline }, async ({ pool }) => {
    await sleep(MEASURE_MS);
    const pssMb: number[] = [];
    for (const { client } of pool.hosts) {
      const { pid } = await client.call<VmStatus>('status', { vm: VM });
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
      pssMb.push(Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1]) / 1024);
    }
    const [primary, standby] = pssMb;
    return [
      {
        ...{ name: 'PSS of both VM processes', value: primary + standby, unit: 'MB' },
        reference: `${primary.toFixed(0)} + ${standby.toFixed(0)}, guest ${GUEST_MB}`,
        target: { atMost: TARGET_MB },
      },
    ];
  });
}
