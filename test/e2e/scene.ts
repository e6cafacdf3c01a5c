/** A VM protected between two real hosts, and a client at work on it that judges from outside. */
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import { GuestClient } from '../../src/drill/guest-client.js';
import { EthernetSwitch } from '../../src/network/switch.js';
import { StreamNic } from '../../src/network/stream-nic.js';
import { within } from '../within.js';
import { FaultProxy } from '../wire/fault-proxy.js';
import { freePort } from '../../src/cli/demo-pool.js';
import { TestPool, type Host } from './pool.js';

export const VM = 'web';
/** Enough to judge by; a busy machine does few of them in a short scene. */
const OPS_MIN = 20;

export interface Scene {
  readonly pool: TestPool;
  readonly a: Host;
  readonly b: Host;
  readonly client: GuestClient;
  /** Between each host and the witness, and before each host's own port. */
  readonly paths: Paths;
}

/** Userspace proxies on every path between the three. */
export class Paths {
  private readonly witness = new Map<string, FaultProxy>();
  private readonly hosts = new Map<string, FaultProxy>();

  async toWitness(host: string, witness: string): Promise<string> {
    return listening(this.witness, host, witness);
  }

  async toHost(host: string, listens: string): Promise<string> {
    return listening(this.hosts, host, listens);
  }

  /** Nothing passes between the hosts, with all connections held open. */
  cutHosts(): void {
    for (const proxy of this.hosts.values()) proxy.cut();
  }

  cutWitness(host: string): void {
    this.witness.get(host)?.cut();
  }

  heal(): void {
    for (const proxy of this.all()) proxy.heal();
  }

  close(): void {
    for (const proxy of this.all()) proxy.kill();
  }

  private all(): FaultProxy[] {
    return [...this.witness.values(), ...this.hosts.values()];
  }
}

async function listening(
  proxies: Map<string, FaultProxy>,
  name: string,
  target: string,
): Promise<string> {
  const [host, port] = target.split(':');
  const proxy = new FaultProxy({ host, port: Number(port) });
  proxies.set(name, proxy);
  await proxy.listen();
  return proxy.address;
}

/** `other`: an arbiter; else the witness, by a path of its own. */
export async function addHost(
  pool: TestPool,
  paths: Paths,
  name: string,
  other?: string,
): Promise<Host> {
  const port = await freePort();
  const arbiter = other ?? (await paths.toWitness(name, pool.witnessListens));
  const advertise = await paths.toHost(name, `127.0.0.1:${port}`);
  return pool.addHost(name, { arbiter, port, advertise });
}

export interface SceneOptions {
  readonly engine?: 'v86' | 'qemu';
  readonly accelerator?: 'auto' | 'kvm' | 'tcg';
  readonly cmdline?: string;
  /** All of them are paired: every connection is TLS. */
  readonly paired?: boolean;
  /** Else a witness. */
  readonly arbiter?: string;
}

/** A test of one scene, which has `deadlineMs`. */
export function sceneTest(
  test: Test,
  name: string,
  deadlineMs: number,
  play: (scene: Scene) => Promise<void>,
  options: SceneOptions = {},
): void {
  test(name, () => within(deadlineMs, name, scene(play, options)));
}

/** Everything ends with the scene; nothing that the client saw may be lost or invented. */
async function scene(
  play: (scene: Scene) => Promise<void>,
  { accelerator = 'auto', paired = false, arbiter, ...guest }: SceneOptions,
): Promise<void> {
  const pool = new TestPool(1_000);
  pool.accelerator = accelerator;
  const paths = new Paths();
  const network = new EthernetSwitch();
  const { port } = await network.listen('127.0.0.1', 0);
  const nic = new StreamNic({ host: '127.0.0.1', port });
  const client = new GuestClient({
    port: nic,
    mac: '02:00:00:00:77:01',
    ip: '10.77.0.1',
    guestIp: '10.77.0.2',
    restMs: 5,
  });
  try {
    if (arbiter === undefined) await pool.startWitness();
    const a = await addHost(pool, paths, 'a', arbiter);
    const b = await addHost(pool, paths, 'b', arbiter);
    if (paired) await pool.pairAll();
    const vm = pool.writeVm(VM, { switchPort: port, ...guest });
    // A software KVM restarts the PIT in each pause: firmware that measures by it comes up alone.
    const alone = accelerator === 'kvm';
    const peer = alone ? [] : ['--peer', b.address];
    const started = await pool.mirror(a, ['start', vm, ...peer, '--audit']);
    assert.is(started.code, 0, started.stderr);
    await client.connect(20_000);
    if (alone) {
      const protect = await pool.mirror(a, ['protect', VM, '--peer', b.address]);
      assert.is(protect.code, 0, protect.stderr);
      await pool.waitFor(a, VM, 'protected');
    }
    client.start();
    await play({ pool, a, b, client, paths });
    const verdict = await client.finish(30_000);
    assert.is(verdict.lost, 0);
    assert.is(verdict.invented, 0);
    assert.ok(verdict.ops > OPS_MIN, `${verdict.ops} operations`);
  } catch (error) {
    for (const { name } of pool.hosts) process.stderr.write(`log of ${name}:\n${pool.log(name)}\n`);
    throw error;
  } finally {
    client.close();
    nic.close();
    await pool.close();
    paths.close();
    await network.close();
  }
}

export const rest = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));
