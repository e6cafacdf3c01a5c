/**
 * From the loss of the primary to the new owner's announcement, its first frame. The guest's own
 * output follows it by some 60 ms; it is not measured here yet.
 */
import type { DemoHost, DemoPool } from '../src/cli/demo-pool.js';
import { TakeoverWatch } from '../src/cli/takeover-watch.js';
import { onStage, statusOf, VM } from './bench-pool.js';
import { median, type Row } from './row.js';

const RUNS = 20;
const DETECT_MS = 1_000;
const VM_OPTIONS = { memory: '64MiB', epoch: '25ms', cmdline: 'tick=10 dirty=256 pattern=sparse' };

export function takeoverBench(): Promise<Row[]> {
  return onStage(VM_OPTIONS, async ({ pool, switchPort }) => {
    const watch = new TakeoverWatch(switchPort);
    try {
      const killed: number[] = [];
      for (let run = 0; run < RUNS; run += 1) killed.push(await killOnce(pool, watch));
      const frozen = await freezeOnce(pool, watch);
      return rowsOf(killed, frozen);
    } finally {
      watch.close();
    }
  });
}

async function killOnce(pool: DemoPool, watch: TakeoverWatch): Promise<number> {
  const { primary, standby } = await pool.roles(VM);
  const released = watch.nextOwner();
  const killedAt = performance.now();
  pool.kill(primary);
  const tookMs = (await released) - killedAt;
  await pool.waitForOwner(standby, VM);
  await pool.startHost(primary);
  await pool.waitFor(standby, VM, 'protected');
  return tookMs;
}

/** The daemon and its VM processes stand still, with all connections open: only silence tells. */
async function freezeOnce(pool: DemoPool, watch: TakeoverWatch): Promise<number> {
  const { primary } = await pool.roles(VM);
  const pids = await pidsOf(primary);
  const released = watch.nextOwner();
  const frozenAt = performance.now();
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    return (await released) - frozenAt;
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
}

async function pidsOf(host: DemoHost): Promise<number[]> {
  const { pid } = await statusOf(host);
  return [host.process?.pid ?? 0, pid].filter((each) => each > 0);
}

function rowsOf(killed: readonly number[], frozen: number): Row[] {
  const unit = 'ms';
  return [
    {
      ...{ name: 'announced after SIGKILL, median', value: median(killed), unit },
      ...{ reference: `${RUNS} runs`, target: { atMost: 250 } },
    },
    {
      ...{ name: 'announced after SIGKILL, longest', value: Math.max(...killed), unit },
      target: { atMost: 1_000 },
    },
    {
      ...{ name: 'announced after SIGSTOP', value: frozen, unit },
      ...{ reference: `detectMs ${DETECT_MS}`, target: { atMost: DETECT_MS + 250 } },
    },
  ];
}
