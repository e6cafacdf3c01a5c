/** From the loss of the primary to the guest's first output that the new owner's gate lets out. */
import type { DemoPool } from '../src/cli/demo-pool.js';
import { TakeoverWatch, type NewOwner } from '../src/cli/takeover-watch.js';
import { GuestClient } from '../src/drill/guest-client.js';
import { whatQemuNeeds } from '../src/machine/qemu/qemu-host.js';
import { killAndReturn, onStage, VM } from './bench-pool.js';
import { leftOut } from './peers.js';
import { processTree } from './processes.js';
import { median, type Row } from './row.js';

const RUNS = Number(process.env['MIRROR_TAKEOVERS'] ?? 20);
const DETECT_MS = 1_000;
const GUEST_IP = '10.77.0.2';
const VM_OPTIONS = {
  memory: '64MiB',
  epoch: '25ms',
  cmdline: `ip=${GUEST_IP}/24 tick=10 dirty=256 pattern=sparse`,
};

export async function takeoverBench(engine: 'v86' | 'qemu'): Promise<Row[]> {
  if (engine === 'qemu' && leftOut('takeovers of QEMU', whatQemuNeeds())) return [];
  return onStage({ ...VM_OPTIONS, engine }, async ({ pool, switchPort }) => {
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
      return rowsOf(killed, frozen).map((row) => ({ ...row, name: `${engine}: ${row.name}` }));
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

function killOnce(pool: DemoPool, watch: TakeoverWatch): Promise<Took> {
  return killAndReturn(pool, (_standby, atMs) => sinceFault(atMs, watch.nextOwner()));
}

/** The host's daemon, VM processes and QEMU stand still, connections open: only silence tells. */
async function freezeOnce(pool: DemoPool, watch: TakeoverWatch): Promise<Took> {
  const { primary } = await pool.roles(VM);
  const pids = processTree(primary.process?.pid ?? 0);
  const owner = watch.nextOwner();
  const frozenAtMs = performance.now();
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    return await sinceFault(frozenAtMs, owner);
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
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
