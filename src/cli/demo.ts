/**
 * `mirror demo`: the whole story on this machine alone, with processes of its own: a VM is
 * mirrored, its host is killed with SIGKILL in the middle of an epoch, the other takes over, and
 * outside clients judge.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DemoConsole } from '../drill/demo-console.js';
import { GuestClient } from '../drill/guest-client.js';
import { EthernetSwitch } from '../network/switch.js';
import type { VmStatus } from '../host/vm-status.js';
import type { Command, Input } from './command.js';
import { DemoPool, type DemoHost } from './demo-pool.js';
import { TakeoverWatch } from './takeover-watch.js';

const VM = 'demo';
const GUEST = { memory: '64MiB', epoch: '50ms', cmdline: 'tick=20 dirty=1536 pattern=random' };
const KILLS_MAX = 12;
const CLIENT_REST_MS = 5;

export interface DemoResult {
  ok: boolean;
  engine: string;
  epochsCommitted: number;
  killedInEpoch: number | null;
  kills: number;
  takeoverMs: number;
  clientOps: number;
  clientOpsLost: number;
  clientOpsInvented: number;
  clientLongestGapMs: number;
  serialBytesLost: number;
  serialBytes: number;
  imageHashEqual: boolean;
  faultLines: number;
}

type Say = (text: string) => void;

export const demo: Command = {
  name: 'demo',
  args: '',
  about: 'the whole story on this machine alone, with a proof that nothing was lost',
  service: true,
  options: { keep: { type: 'boolean', about: 'leave the pool up until Ctrl-C' } },
  async run(input: Input): Promise<number> {
    const dir = mkdtempSync(join(tmpdir(), 'mirror-demo-'));
    const say: Say = (text) => void process.stderr.write(`${text}\n`);
    const pool = new DemoPool(dir);
    const network = new EthernetSwitch();
    try {
      const result = await tell(pool, network, say);
      say(result.ok ? 'Nothing that anybody saw was lost.' : 'NOT PROVEN: see the figures.');
      if (input.options['keep'] === true) await keepUp(pool, say);
      process.stdout.write(`${JSON.stringify(result)}\n`);
      return result.ok ? 0 : 1;
    } finally {
      await pool.close();
      await network.close();
      rmSync(dir, { recursive: true, force: true });
    }
  },
};

async function keepUp(pool: DemoPool, say: Say): Promise<void> {
  for (const host of pool.hosts) say(`host ${host.name}: --socket ${host.socket}`);
  say('The pool stays up until Ctrl-C.');
  await new Promise<void>((resolve) => process.once('SIGINT', resolve));
}

async function tell(pool: DemoPool, network: EthernetSwitch, say: Say): Promise<DemoResult> {
  const { port } = await network.listen('127.0.0.1', 0);
  await pool.start({ paired: true });
  say('Two hosts and a witness are up and paired: a process each, TLS 1.3 between them.');
  await pool.startVm(VM, { ...GUEST, switchPort: port });
  const first = await pool.waitFor(pool.hosts[0], VM, 'protected');
  say(`The VM runs on host a and is mirrored to host ${first.peer}, at every epoch.`);

  const watch = new TakeoverWatch(port);
  const client = new GuestClient({
    ...{ port: watch, mac: '02:00:00:00:77:01', ip: '10.77.0.1', guestIp: '10.77.0.2' },
    restMs: CLIENT_REST_MS,
  });
  const console = new DemoConsole((from) => pool.console(VM, from));
  try {
    await client.connect(20_000);
    client.start();
    console.start();
    await sleep(4_000);
    say(`A client has done ${client.verdict().ops} operations on it over the network.`);
    const imageHashEqual = await imagesEqual(pool);
    say(`The secondary's memory, hashed anew: ${imageHashEqual ? 'equal' : 'DIFFERENT'}.`);
    const killed = await killInMidEpoch(pool, watch, say);
    await sleep(3_000);
    const verdict = await client.finish(30_000);
    await console.finish();
    const { ticks, serialBytes, serialBytesLost } = console;
    say(`${verdict.ops} operations, ${verdict.lost} lost, ${verdict.invented} invented.`);
    say(`${serialBytes} serial bytes, ${serialBytesLost} lost, ${ticks.faultCount} fault lines.`);
    return {
      ok:
        verdict.lost === 0 &&
        verdict.invented === 0 &&
        verdict.ops >= 1_000 &&
        serialBytesLost === 0 &&
        ticks.faultCount === 0 &&
        ticks.brokenCount === 0 &&
        imageHashEqual &&
        killed.epoch !== null,
      engine: first.engine,
      epochsCommitted: killed.status.committedEpoch,
      killedInEpoch: killed.epoch,
      kills: killed.kills,
      takeoverMs: Math.round(killed.takeoverMs),
      clientOps: verdict.ops,
      clientOpsLost: verdict.lost,
      clientOpsInvented: verdict.invented,
      clientLongestGapMs: Math.round(verdict.longestGapMs),
      serialBytesLost,
      serialBytes,
      imageHashEqual,
      faultLines: ticks.faultCount,
    };
  } finally {
    console.stop();
    client.close();
    watch.close();
  }
}

interface Image {
  readonly epoch: number;
  readonly fullRehash?: string;
  readonly memoryRoot?: string | null;
}

/**
 * The root that the primary sent with an epoch, against all of the secondary's bytes hashed anew.
 */
async function imagesEqual(pool: DemoPool): Promise<boolean> {
  const { primary, standby } = await pool.roles(VM);
  const copy = await standby.client.vm<Image>(VM, 'image');
  const sent = await primary.client.vm<Image>(VM, 'image', { epoch: copy.epoch });
  return sent.memoryRoot !== null && sent.memoryRoot === copy.fullRehash;
}

interface Killed {
  epoch: number | null;
  kills: number;
  takeoverMs: number;
  status: VmStatus;
}

/**
 * SIGKILL of the primary's host, every process of it, while an epoch is arriving; again, until the
 * survivor has, by its own count, some parts of an epoch but not all: it may have come whole in
 * the meantime. After every kill the host comes back and the VM is protected again, without being
 * stopped.
 */
async function killInMidEpoch(pool: DemoPool, watch: TakeoverWatch, say: Say): Promise<Killed> {
  for (let kills = 1; ; kills += 1) {
    const { primary, standby } = await pool.roles(VM);
    const released = watch.nextOwner();
    await pool.waitForArrival(standby, VM);
    const killedAt = performance.now();
    pool.kill(primary);
    const takeoverMs = (await released).outputAtMs - killedAt;
    const status = await pool.waitForOwner(standby, VM);
    const partial = status.lastTakeover?.partial ?? null;
    const where = partial
      ? `in epoch ${partial.epoch}, of which ${partial.parts} of ${partial.partCount} parts came`
      : 'between two epochs';
    say(`kill -9 of host ${primary.name} ${where}: host ${standby.name} has taken over.`);
    say(`  first output of the guest there after ${takeoverMs.toFixed(0)} ms`);
    await comeBack(pool, primary, standby, say);
    if (partial || kills === KILLS_MAX)
      return { epoch: partial?.epoch ?? null, kills, takeoverMs, status };
  }
}

async function comeBack(pool: DemoPool, host: DemoHost, owner: DemoHost, say: Say): Promise<void> {
  await pool.startHost(host);
  await pool.waitFor(owner, VM, 'protected');
  say(`  host ${host.name} is back; the VM is protected again.`);
}
