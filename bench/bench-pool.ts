/** A pool of real processes with one VM on it, for the benches that need the whole path. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DemoPool, type DemoHost, type DemoVm } from '../src/cli/demo-pool.js';
import { TickJudge } from '../src/drill/tick-judge.js';
import type { VmStatus } from '../src/host/vm-status.js';
import { EthernetSwitch } from '../src/network/switch.js';

export const VM = 'bench';
const SAMPLE_MS = 90;

export interface BenchVm extends Omit<DemoVm, 'switchPort'> {
  /** Without one it is plugged into nothing. */
  readonly nic?: boolean;
  /** More options for both hosts. */
  readonly hostArgs?: readonly string[];
}

export interface Stage {
  readonly pool: DemoPool;
  readonly switchPort: number;
}

/** Two hosts, a witness, a switch, and a protected VM; all of it ends with `play`. */
export async function onStage<T>(
  vm: BenchVm,
  play: (stage: Stage) => Promise<T>,
  options: { paired?: boolean } = {},
): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'mirror-bench-'));
  const pool = new DemoPool(dir, vm.hostArgs);
  const network = new EthernetSwitch();
  try {
    const { port: switchPort } = await network.listen('127.0.0.1', 0);
    await pool.start(options);
    await pool.startVm(VM, { ...vm, switchPort: vm.nic === false ? null : switchPort });
    await pool.waitFor(pool.hosts[0], VM, 'protected');
    return await play({ pool, switchPort });
  } finally {
    await pool.close();
    await network.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

export const statusOf = (host: DemoHost): Promise<VmStatus> =>
  host.client.call<VmStatus>('status', { vm: VM });

/** Kills the owner's host, starts it again once the VM is taken over, and waits for protection. */
export async function killAndReturn<T>(
  pool: DemoPool,
  watch: (standby: DemoHost, killedAtMs: number) => Promise<T>,
): Promise<T> {
  const { primary, standby } = await pool.roles(VM);
  const killedAtMs = performance.now();
  pool.kill(primary);
  const seen = await watch(standby, killedAtMs);
  await pool.waitForOwner(standby, VM);
  await pool.startHost(primary);
  await pool.waitFor(standby, VM, 'protected');
  return seen;
}

/** The status now and then, for `forMs`. */
export async function sampleStatus(host: DemoHost, forMs: number): Promise<VmStatus[]> {
  const samples: VmStatus[] = [];
  const endAtMs = performance.now() + forMs;
  while (performance.now() < endAtMs) {
    await sleep(SAMPLE_MS);
    samples.push(await statusOf(host));
  }
  return samples;
}

/** What the guest tells of itself in its ticks: its time and its work. */
export class TickReader {
  private readonly pool: DemoPool;
  private readonly judge = new TickJudge();
  private from = 0;

  constructor(pool: DemoPool) {
    this.pool = pool;
  }

  /** Reads on to the newest tick. */
  async read(): Promise<TickJudge> {
    const read = await this.pool.console(VM, this.from);
    if (read) {
      this.judge.push(read.bytes);
      this.from = read.offset + read.bytes.length;
    }
    return this.judge;
  }
}
