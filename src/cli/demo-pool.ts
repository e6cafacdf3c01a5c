/** The processes of the demo: two hosts and a witness, started, killed and started again. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { VmStatus } from '../host/vm-status.js';
import { controlPath } from '../host/control-socket.js';
import { MirrorError } from '../core/errors.js';
import { ControlClient } from './control-client.js';
import type { ConsoleRead } from './console.js';

const MAIN = fileURLToPath(new URL('./main.js', import.meta.url));
const WAIT_MS_MAX = 30_000;
const POLL_MS = 20;

export interface DemoHost {
  readonly name: string;
  readonly address: string;
  readonly socket: string;
  readonly client: ControlClient;
  process: ChildProcess | null;
}

export interface DemoVm {
  readonly memory: string;
  readonly epoch: string;
  /** For the built-in guest, besides its address. */
  readonly cmdline: string;
  /** Of the switch that its NIC is plugged into; `null`: no NIC. */
  readonly switchPort: number | null;
  /** v86 unless told. */
  readonly engine?: 'v86' | 'qemu';
  /** Files that it boots from, and the whole of its command line; else the built-in guest. */
  readonly boot?: { readonly kernel: string; readonly initrd?: string };
}

export class DemoPool {
  readonly hosts: DemoHost[] = [];
  private readonly dir: string;
  private readonly hostArgs: readonly string[];
  private witness: ChildProcess | null = null;
  private arbiter = '';

  /** `hostArgs`: more options for each `mirror host`. */
  constructor(dir: string, hostArgs: readonly string[] = []) {
    this.dir = dir;
    this.hostArgs = hostArgs;
  }

  /** `paired`: all three by token, so that every connection between them is TLS. */
  async start(options: { paired?: boolean } = {}): Promise<void> {
    const address = `127.0.0.1:${await freePort()}`;
    this.arbiter = `witness:${address}`;
    this.witness = this.run(['witness', '--listen', address, '--state-dir', join(this.dir, 'w')]);
    for (const name of ['a', 'b']) {
      const socket = join(this.dir, name, 'control.sock');
      const host: DemoHost = {
        ...{ name, address: `127.0.0.1:${await freePort()}`, socket },
        ...{ client: new ControlClient(socket), process: null },
      };
      this.hosts.push(host);
      await this.startHost(host);
    }
    if (options.paired === true) await this.pairAll();
  }

  private async pairAll(): Promise<void> {
    const [a, b] = this.hosts;
    const witness = new ControlClient(controlPath(join(this.dir, 'w')));
    for (const [giver, joiner] of [
      [witness, a.client],
      [witness, b.client],
      [b.client, a.client],
    ]) {
      const { token } = await giver.call<{ token: string }>('token');
      await joiner.call('join', { token });
    }
  }

  async startHost(host: DemoHost): Promise<void> {
    host.process = this.run([
      ...['host', '--name', host.name, '--listen', host.address, '--arbiter', this.arbiter],
      ...['--state-dir', join(this.dir, host.name), ...this.hostArgs],
    ]);
    await this.poll(`host ${host.name} answers`, () => host.client.call<VmStatus[]>('list'));
  }

  async startVm(name: string, vm: DemoVm): Promise<void> {
    const path = join(this.dir, `${name}.yaml`);
    const nic =
      vm.switchPort === null
        ? ''
        : 'nics:\n  - { id: lan, mac: "52:54:00:12:34:56", ' +
          `attach: "stream:127.0.0.1:${vm.switchPort}" }\n`;
    const yaml =
      `name: ${name}\nengine: ${vm.engine ?? 'v86'}\nmemory: ${vm.memory}\n` +
      `epoch: ${vm.epoch}\nboot: ${bootOf(vm)}\n${nic}`;
    writeFileSync(path, yaml);
    const [a, b] = this.hosts;
    await a.client.call('start', { yaml, path, peer: b.address, auditEvery: 0 });
  }

  /** As a loss of power would: the host's VM processes at the same moment, not after its daemon. */
  kill(host: DemoHost): void {
    const daemon = host.process;
    if (!daemon?.pid) return;
    for (const pid of childrenOf(daemon.pid)) process.kill(pid, 'SIGKILL');
    daemon.kill('SIGKILL');
  }

  /** Until the standby has some parts of an epoch and not all; no promise that it stays so. */
  async waitForArrival(standby: DemoHost, vm: string): Promise<void> {
    const endAt = Date.now() + WAIT_MS_MAX;
    while (Date.now() < endAt) {
      const { arriving } = await standby.client.call<VmStatus>('status', { vm });
      if (arriving && arriving.parts * 2 <= arriving.partCount) return;
    }
    throw new MirrorError('TIMEOUT', `no epoch of ${vm} was seen to arrive on ${standby.name}`);
  }

  waitFor(host: DemoHost, vm: string, state: string): Promise<VmStatus> {
    return this.poll(`${vm} is ${state} on ${host.name}`, async () => {
      const status = await host.client.call<VmStatus>('status', { vm });
      return status.state === state ? status : null;
    });
  }

  waitForOwner(host: DemoHost, vm: string): Promise<VmStatus> {
    return this.poll(`host ${host.name} owns ${vm}`, async () => {
      const status = await host.client.call<VmStatus>('status', { vm });
      return status.role === 'primary' && status.lastTakeover ? status : null;
    });
  }

  roles(vm: string): Promise<{ primary: DemoHost; standby: DemoHost }> {
    const [a, b] = this.hosts;
    return this.poll('the VM is protected', async () => {
      for (const [primary, standby] of [
        [a, b],
        [b, a],
      ] as const) {
        const status = await primary.client.call<VmStatus>('status', { vm }).catch(() => null);
        if (status?.state === 'protected') return { primary, standby };
      }
      return null;
    });
  }

  /** The serial stream, from whichever host has it. */
  async console(vm: string, from: number): Promise<{ offset: number; bytes: Uint8Array } | null> {
    for (const host of this.hosts) {
      const status = await host.client.call<VmStatus>('status', { vm }).catch(() => null);
      if (status?.role !== 'primary' || status.pid === 0 || status.state === 'starting') continue;
      const read = await host.client.vm<ConsoleRead>(vm, 'console-read', { from });
      return { offset: read.offset, bytes: Buffer.from(read.bytes, 'base64') };
    }
    return null;
  }

  async close(): Promise<void> {
    for (const child of [...this.hosts.map((host) => host.process), this.witness]) {
      if (!child || child.exitCode !== null || child.signalCode !== null) continue;
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    }
  }

  private run(args: string[]): ChildProcess {
    return spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'ignore', 'ignore'] });
  }

  private async poll<T>(what: string, look: () => Promise<T | null>): Promise<T> {
    const endAt = Date.now() + WAIT_MS_MAX;
    for (;;) {
      const found = await look().catch(() => null);
      if (found) return found;
      if (Date.now() > endAt) throw new MirrorError('TIMEOUT', `not so in time: ${what}`);
      await sleep(POLL_MS);
    }
  }
}

function bootOf({ boot, cmdline }: DemoVm): string {
  if (!boot) return `{ kernel: builtin, cmdline: "ip=10.77.0.2/24 ${cmdline}" }`;
  const initrd = boot.initrd === undefined ? '' : `initrd: "${boot.initrd}", `;
  return `{ kernel: "${boot.kernel}", ${initrd}cmdline: "${cmdline}" }`;
}

/** Of a process whose only thread that starts others is its first. */
function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}
