/**
 * A pool of real processes for the end-to-end tests: a witness, hosts, a switch, and the command
 * line to talk to them, all on loopback ports of their own. `close` leaves no process behind.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../src/cli/demo-pool.js';
import { until, within } from '../within.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Host {
  readonly name: string;
  /** Where peers dial it: its own port, or a proxy before it. */
  readonly address: string;
  readonly listens: string;
  readonly stateDir: string;
  readonly socket: string;
  /** Network namespace that it runs in; null: the test's own. */
  readonly namespace: string | null;
  readonly memory: string | null;
  process: ChildProcess | null;
}

/** What the tests read of `mirror status --json`. */
export interface Status {
  readonly captureDriver: { readonly name: string; readonly why: string };
  readonly role: string;
  readonly state: string;
  readonly epoch: number;
  readonly committedEpoch: number;
  readonly generation: number;
  readonly owner: string;
  readonly peer: string;
  readonly engine: string;
  readonly dirtyTracking: string;
  readonly pid: number;
  readonly guestClockLagMs: number;
  readonly missedPages: number;
  readonly auditedEpochs: number;
  readonly gateHeldBytes: number;
  readonly warnings: readonly { code: string; text: string }[];
}

export class TestPool {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-e2e-'));
  readonly hosts: Host[] = [];
  readonly detectMs: number;
  /** Where hosts find the witness; a test may put a proxy in between. */
  witnessAddress = '';
  witness: ChildProcess | null = null;
  /** In namespaces, beyond loopback: plain connections, as a person may allow. */
  insecure = true;
  private witnessPort = 0;

  /** Where VMs of other hosts may have disks. */
  diskFolders: string[] = [tmpdir()];
  /** What its hosts run QEMU machines with. */
  accelerator: 'auto' | 'kvm' | 'tcg' = 'auto';

  constructor(detectMs = 1_000) {
    this.detectMs = detectMs;
  }

  async startWitness(): Promise<void> {
    if (this.witnessPort === 0) this.witnessPort = await freePort();
    const address = `127.0.0.1:${this.witnessPort}`;
    if (this.witnessAddress === '') this.witnessAddress = address;
    const args = ['witness', '--listen', address, '--state-dir', join(this.dir, 'witness')];
    this.witness = this.spawn('witness', args);
    await until(10_000, 'witness listens', () => canConnect(this.witnessPort));
  }

  /** The same in a network namespace, at an address of its. */
  startWitnessIn(namespace: string, address: string): void {
    this.witnessAddress = address;
    const args = ['witness', '--listen', address, '--state-dir', join(this.dir, 'witness')];
    this.witness = this.spawn('witness', [...args, ...this.openness], namespace);
  }

  private get openness(): string[] {
    return this.insecure ? ['--insecure'] : [];
  }

  get witnessSocket(): string {
    return join(this.dir, 'witness', 'control.sock');
  }

  get witnessListens(): string {
    return `127.0.0.1:${this.witnessPort}`;
  }

  /**
   * `arbiter`: where this host finds the witness, if not at `witnessAddress`. `port` and
   * `advertise`: where it listens, and where others are told to dial it.
   */
  async addHost(
    name: string,
    options: {
      arbiter?: string;
      port?: number;
      advertise?: string;
      /** Where it runs, and its address there. */
      namespace?: { name: string; ip: string } | undefined;
      /** What its VMs may take. */
      memory?: string;
    } = {},
  ): Promise<Host> {
    const { arbiter = this.witnessAddress, port = await freePort(), namespace } = options;
    const stateDir = join(this.dir, name);
    const listens = `${namespace?.ip ?? '127.0.0.1'}:${port}`;
    const address = options.advertise ?? listens;
    const socket = join(stateDir, 'control.sock');
    const { memory = null } = options;
    const place = { namespace: namespace?.name ?? null, memory, process: null };
    const host: Host = { name, address, listens, stateDir, socket, ...place };
    this.hosts.push(host);
    this.arbiters.set(name, arbiter);
    await this.startHost(host);
    return host;
  }

  private readonly arbiters = new Map<string, string>();

  async startHost(host: Host): Promise<void> {
    const args = [
      ...['host', '--name', host.name, '--listen', host.listens],
      ...['--advertise', host.address],
      ...['--state-dir', host.stateDir, '--detect-ms', String(this.detectMs)],
      ...['--accelerator', this.accelerator, '--disks', this.diskFolders.join(':')],
      ...['--arbiter', arbiterOf(this.arbiters.get(host.name) ?? '')],
      ...(host.namespace === null ? [] : this.openness),
      ...(host.memory === null ? [] : ['--memory', host.memory]),
    ];
    host.process = this.spawn(host.name, args, host.namespace);
    await until(10_000, `host ${host.name} answers`, async () => {
      const ran = await this.mirror(host, ['list', '--json']);
      return ran.code === 0;
    });
  }

  /** Each host with the witness, and hosts with each other: from then on by TLS alone. */
  async pairAll(): Promise<void> {
    for (const [at, host] of this.hosts.entries()) {
      const arbiter = this.arbiters.get(host.name) ?? '';
      if (arbiter !== 'none') await this.pair(host, arbiter, this.witnessSocket);
      for (const { address, socket } of this.hosts.slice(0, at))
        await this.pair(host, address, socket);
    }
  }

  private async pair(host: Host, address: string, giver: string): Promise<void> {
    const given = await runMirror(['token', '--socket', giver], 10_000);
    const joined = await this.mirror(host, ['join', address, '--token', given.stdout.trim()]);
    if (joined.code !== 0) throw new Error(`${host.name} cannot join ${address}: ${joined.stderr}`);
  }

  /** SIGKILL, as a crash of the daemon; its VM processes go with it. */
  async kill(child: ChildProcess | null): Promise<void> {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
    });
  }

  writeVm(
    name: string,
    fields: {
      switchPort?: number;
      /** Where its NIC is plugged in, instead of a switch. */
      attach?: string;
      cmdline?: string;
      memory?: string;
      epoch?: string;
      boot?: string;
      engine?: string;
      /** Each as in a file, without its braces. */
      disks?: readonly string[];
    },
  ): string {
    const { switchPort } = fields;
    const stream = switchPort === undefined ? undefined : `stream:127.0.0.1:${switchPort}`;
    const attach = fields.attach ?? stream;
    const nic =
      attach === undefined
        ? ''
        : `nics:\n  - { id: lan, mac: "52:54:00:12:34:56", attach: "${attach}" }\n`;
    const cmdline = fields.cmdline ?? 'ip=10.77.0.2/24 tick=10 dirty=256 pattern=sparse';
    const disks = (fields.disks ?? []).map((disk) => `  - { ${disk} }\n`).join('');
    const path = join(this.dir, `${name}.yaml`);
    writeFileSync(
      path,
      `name: ${name}\nengine: ${fields.engine ?? 'v86'}\nmemory: ${fields.memory ?? '32MiB'}\n` +
        `boot: { ${fields.boot ?? 'kernel: builtin'}, cmdline: "${cmdline}" }\n${nic}` +
        (disks === '' ? '' : `disks:\n${disks}`) +
        `protection: mirror\nepoch: ${fields.epoch ?? '25ms'}\n`,
    );
    return path;
  }

  /** Runs one command of the command line against a host's daemon. */
  mirror(host: Host, args: string[], timeoutMs = 60_000): Promise<Ran> {
    return runMirror([...args, '--socket', host.socket], timeoutMs);
  }

  async status(host: Host, vm: string): Promise<Status | null> {
    const ran = await this.mirror(host, ['status', vm, '--json'], 10_000);
    return ran.code === 0 ? (JSON.parse(ran.stdout) as Status) : null;
  }

  async waitFor(host: Host, vm: string, state: string, timeoutMs = 30_000): Promise<Status> {
    return until(timeoutMs, `${vm} on ${host.name} is ${state}`, async () => {
      const status = await this.status(host, vm);
      return status?.state === state ? status : null;
    });
  }

  async close(): Promise<void> {
    for (const host of this.hosts) await this.kill(host.process);
    await this.kill(this.witness);
    rmSync(this.dir, { recursive: true, force: true });
  }

  log(name: string): string {
    return readFileSync(join(this.dir, `${name}.log`), 'utf8');
  }

  private spawn(name: string, args: string[], namespace: string | null = null): ChildProcess {
    const inside = namespace === null ? [] : ['ip', 'netns', 'exec', namespace];
    const [command, ...rest] = [...inside, process.execPath, main, ...args];
    const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    const keep = (chunk: Buffer): void => {
      writeFileSync(join(this.dir, `${name}.log`), chunk, { flag: 'a' });
      if (process.env['MIRROR_E2E_VERBOSE']) process.stderr.write(`[${name}] ${chunk.toString()}`);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    return child;
  }
}

/** A bare address is a witness's. */
const arbiterOf = (text: string): string =>
  /^(none$|(etcd|file|device):)/.test(text) ? text : `witness:${text}`;

export function runMirror(args: string[], timeoutMs: number): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [main, ...args],
      { timeout: timeoutMs, maxBuffer: 16 << 20 },
      (error, stdout, stderr) => {
        const code = error ? (typeof error.code === 'number' ? error.code : -1) : 0;
        resolve({ code, stdout, stderr });
      },
    );
  });
}

async function canConnect(port: number): Promise<boolean> {
  const { connect } = await import('node:net');
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** A pool of hosts a and b; all of it ends with `play`, which has `deadlineMs`. */
export async function onPair(
  name: string,
  detectMs: number,
  deadlineMs: number,
  play: (pool: TestPool, a: Host, b: Host) => Promise<void>,
): Promise<void> {
  const pool = new TestPool(detectMs);
  try {
    await pool.startWitness();
    const a = await pool.addHost('a');
    const b = await pool.addHost('b');
    await within(deadlineMs, name, play(pool, a, b));
  } finally {
    await pool.close();
  }
}

export function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !['Z', 'X'].includes(stat.slice(stat.lastIndexOf(')') + 2)[0]);
  } catch {
    return false;
  }
}

/** All descendants of a process, from /proc, itself first. */
export function processTree(pid: number): number[] {
  let children: string;
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  } catch {
    return [pid];
  }
  const pids = children.split(' ').filter((text) => text !== '');
  return [pid, ...pids.flatMap((text) => processTree(Number(text)))];
}
