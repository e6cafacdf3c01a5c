/** From the loss of the primary to the guest's first output that the new owner's gate lets out. */
import type { DemoHost, DemoPool } from '../src/cli/demo-pool.js';
import { TakeoverWatch, type NewOwner } from '../src/cli/takeover-watch.js';
import { GuestClient } from '../src/drill/guest-client.js';
import { onStage, statusOf, VM } from './bench-pool.js';
import { median, type Row } from './row.js';

const RUNS = 20;
const DETECT_MS = 1_000;
const GUEST_IP = '10.77.0.2';
const VM_OPTIONS = {
  memory: '64MiB',
  epoch: '25ms',
  cmdline: `ip=${GUEST_IP}/24 tick=10 dirty=256 pattern=sparse`,
};

export function takeoverBench(): Promise<Row[]> {
  return onStage(VM_OPTIONS, async ({ pool, switchPort }) => {
    const watch = new TakeoverWatch(switchPort);
    const client = new GuestClient({
      ...{ port: watch, mac: '02:00:00:00:77:01', ip: '10.77.0.1', guestIp: GUEST_IP },
      restMs: 2,
    });
    try {
      await client.connect(20_000);
      client.start();
      const killed: Took[] = [];
      for (let run = 0; run < RUNS; run += 1) killed.push(await killOnce(pool, watch));
      const frozen = await freezeOnce(pool, watch);
      return rowsOf(killed, frozen);
    } finally {
      client.close();
      watch.close();
    }
  });
}

/** Since the fault. */
interface Took {
  readonly announcedMs: number;
  readonly outputMs: number;
}

async function sinceFault(faultAtMs: number, owner: Promise<NewOwner>): Promise<Took> {
  const { announcedAtMs, outputAtMs } = await owner;
  return { announcedMs: announcedAtMs - faultAtMs, outputMs: outputAtMs - faultAtMs };
}

async function killOnce(pool: DemoPool, watch: TakeoverWatch): Promise<Took> {
  const { primary, standby } = await pool.roles(VM);
  const owner = watch.nextOwner();
  const killedAtMs = performance.now();
  pool.kill(primary);
  const took = await sinceFault(killedAtMs, owner);
  await pool.waitForOwner(standby, VM);
  await pool.startHost(primary);
  await pool.waitFor(standby, VM, 'protected');
  return took;
}

/** The daemon and its VM processes stand still, with all connections open: only silence tells. */
async function freezeOnce(pool: DemoPool, watch: TakeoverWatch): Promise<Took> {
  const { primary } = await pool.roles(VM);
  const pids = await pidsOf(primary);
  const owner = watch.nextOwner();
  const frozenAtMs = performance.now();
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    return await sinceFault(frozenAtMs, owner);
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
}

async function pidsOf(host: DemoHost): Promise<number[]> {
  const { pid } = await statusOf(host);
  return [host.process?.pid ?? 0, pid].filter((each) => each > 0);
}

function rowsOf(killed: readonly Took[], frozen: Took): Row[] {
  const unit = 'ms';
  const outputs = killed.map(({ outputMs }) => outputMs);
  const announced = median(killed.map(({ announcedMs }) => announcedMs));
  return [
    {
      ...{ name: 'first output after SIGKILL, median', value: median(outputs), unit },
      reference: `${RUNS} runs, announced after ${announced.toFixed(0)} ms`,
      target: { atMost: 250 },
    },
    {
      ...{ name: 'first output after SIGKILL, longest', value: Math.max(...outputs), unit },
      target: { atMost: 1_000 },
    },
    {
      ...{ name: 'first output after SIGSTOP', value: frozen.outputMs, unit },
      reference: `detectMs ${DETECT_MS}, announced after ${frozen.announcedMs.toFixed(0)} ms`,
      target: { atMost: DETECT_MS + 250 },
    },
  ];
}
