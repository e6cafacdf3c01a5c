/** How much of its work a guest still gets done while it is mirrored. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DemoPool } from '../src/cli/demo-pool.js';
import { onStage, statusOf, TickReader, VM } from './bench-pool.js';
import { median, type Row } from './row.js';

const EPOCHS_MS = [10, 25, 50, 100];
const TARGET_EPOCH_MS = 25;
const ROUNDS = 4;
const WINDOW_MS = 2_000;
const SETTLE_MS = 400;
const CMDLINE = 'tick=10 dirty=256 pattern=sparse load=spin';

export async function workBench(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const epochMs of EPOCHS_MS)
    rows.push(
      await onStage({ memory: '64MiB', epoch: `${epochMs}ms`, cmdline: CMDLINE }, ({ pool }) =>
        share(pool, epochMs),
      ),
    );
  return rows;
}

/** Protected and unprotected in turn, on the same VM: a busy machine slows both. */
async function share(pool: DemoPool, epochMs: number): Promise<Row> {
  const [a, b] = pool.hosts;
  const ticks = new TickReader(pool);
  const shares: number[] = [];
  let dirtyPages = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const mirrored = await workPerSecond(ticks);
    dirtyPages = (await statusOf(a)).dirtyPages;
    await a.client.vm(VM, 'command', { command: 'unprotect' });
    const alone = await workPerSecond(ticks);
    shares.push(mirrored / alone);
    await a.client.vm(VM, 'command', { command: 'protect', peer: b.address });
    await pool.waitFor(a, VM, 'protected');
  }
  return {
    ...{ name: `guest work at ${epochMs} ms epochs`, value: median(shares) * 100, unit: '%' },
    reference: `of unprotected; ${Math.round(dirtyPages)} dirty pages an epoch`,
    ...(epochMs === TARGET_EPOCH_MS ? { target: { atLeast: 85 } } : {}),
  };
}

async function workPerSecond(ticks: TickReader): Promise<number> {
  await sleep(SETTLE_MS);
  const [before, beforeMs] = [(await ticks.read()).work, performance.now()];
  await sleep(WINDOW_MS);
  const [after, afterMs] = [(await ticks.read()).work, performance.now()];
  return (after - before) / (afterMs - beforeMs);
}
