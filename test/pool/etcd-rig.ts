/** Real etcd processes for tests: a cluster of one or three on ports and folders of their own. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EtcdArbiter } from '../../src/pool/etcd-arbiter.js';
import { freePort } from '../../src/cli/demo-pool.js';
import { FaultProxy } from '../wire/fault-proxy.js';
import type { Arbiter } from '../../src/pool/arbiter.js';
import { until } from '../within.js';
import type { ArbiterRig } from './arbiter-acceptance.js';

export function whatEtcdNeeds(): string {
  const { status } = spawnSync('etcd', ['--version'], { stdio: 'ignore' });
  return status === 0 ? '' : 'etcd is not installed (Debian: etcd-server)';
}

interface EtcdMember {
  readonly name: string;
  readonly client: string;
  readonly peer: string;
  process: ChildProcess | null;
}

export class EtcdRig implements ArbiterRig {
  readonly members: EtcdMember[] = [];
  readonly faults: string[] = [];
  private readonly dir = mkdtempSync(join(tmpdir(), 'mirror-etcd-'));
  private readonly proxies: FaultProxy[] = [];

  static async make(size = 1): Promise<EtcdRig> {
    const rig = new EtcdRig();
    for (let i = 0; i < size; i += 1) {
      const [client, peer] = [await freePort(), await freePort()];
      const urls = { client: `127.0.0.1:${client}`, peer: `http://127.0.0.1:${peer}` };
      rig.members.push({ name: `m${i}`, ...urls, process: null });
    }
    await rig.start();
    return rig;
  }

  get endpoints(): string[] {
    return this.members.map(({ client }) => `http://${client}`);
  }

  async start(): Promise<void> {
    for (const member of this.members) this.startMember(member);
    const probe = this.connect(1_000);
    const vm = '00000000-0000-4000-8000-000000000000';
    await until(20_000, 'etcd answers', async () => (await probe.read(vm)).outcome === 'ok');
    probe.close();
  }

  startMember(member: EtcdMember): void {
    if (member.process) return;
    const { name, client, peer } = member;
    const cluster = this.members.map((each) => `${each.name}=${each.peer}`).join(',');
    const child = spawn(
      'etcd',
      [
        ...['--name', name, '--data-dir', join(this.dir, name), '--log-level', 'error'],
        ...['--listen-client-urls', `http://${client}`],
        ...['--advertise-client-urls', `http://${client}`],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
        ...['--initial-cluster', cluster],
      ],
      { stdio: 'ignore' },
    );
    child.once('exit', () => (member.process = null));
    member.process = child;
  }

  async killMember(member: EtcdMember): Promise<void> {
    const child = member.process;
    if (!child) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  }

  async kill(): Promise<void> {
    for (const member of this.members) await this.killMember(member);
  }

  connect(deadlineMs: number): EtcdArbiter {
    const onFault = (text: string): void => void this.faults.push(text);
    return new EtcdArbiter(this.endpoints, { deadlineMs, onFault });
  }

  async connectDeaf(deadlineMs: number): Promise<Arbiter> {
    const [host, port] = this.members[0].client.split(':');
    const proxy = new FaultProxy({ host, port: Number(port) });
    this.proxies.push(proxy);
    await proxy.listen();
    const arbiter = new EtcdArbiter([`http://${proxy.address}`], { deadlineMs });
    // The connection is made while all is well; then answers stay away.
    await arbiter.read('00000000-0000-4000-8000-000000000000');
    proxy.cut('from');
    return arbiter;
  }

  async close(): Promise<void> {
    for (const proxy of this.proxies) proxy.kill();
    await this.kill();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
