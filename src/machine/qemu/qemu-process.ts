/**
 * One QEMU: a child that cannot outlive us, in a folder of its own that nobody else can enter,
 * which calls us on the sockets that we listen on there.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, closeSync, rmSync, writeSync } from 'node:fs';
import { createServer, type Server, type ServerOpts, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ownFolder } from '../../network/own-folder.js';
import type { MachineSpec } from '../machine.js';
import { memoryFile } from './libc.js';
import { qemuArgs, type Accelerator, type Role } from './qemu-args.js';
import { QemuError } from './qemu-error.js';
import { QEMU_BINARY } from './qemu-host.js';
import { QmpClient } from './qmp-client.js';

const START_MS_MAX = 15_000;
const STDERR_CHARS_MAX = 4_000;
const END_MS_MAX = 500;
const END_REST_MS = 5;

export interface LaunchOptions {
  readonly spec: MachineSpec;
  readonly accelerator: Accelerator;
  readonly role: Role;
  readonly ramFd: number;
}

export class QemuProcess {
  readonly dir: string;
  /** Where device states are saved to: a file in memory that both have open. */
  readonly deviceStateFd: number;
  qmp!: QmpClient;
  serial!: Socket;
  nics: Socket[] = [];
  /** It is gone, though nobody stopped it. */
  onExit: ((error: QemuError) => void) | null = null;
  private readonly child: ChildProcess;
  private readonly servers: Server[] = [];
  private stderr = '';
  private ended: QemuError | null = null;

  static async launch(options: LaunchOptions): Promise<QemuProcess> {
    const dir = ownFolder('qemu');
    const { spec } = options;
    const names = ['qmp', 'serial', ...spec.nics.map((_nic, index) => `nic${index}`)];
    const servers = await Promise.all(names.map((name) => listen(join(dir, `${name}.sock`))));
    const process = new QemuProcess(dir, options, servers);
    try {
      await process.connect(servers);
    } catch (error) {
      const ended = await process.endedByItself();
      await process.kill();
      throw ended ?? error;
    }
    return process;
  }

  private constructor(dir: string, options: LaunchOptions, servers: Server[]) {
    const { spec, accelerator, role, ramFd } = options;
    this.dir = dir;
    this.servers = servers;
    this.deviceStateFd = memoryFile('mirror-devices');
    const boot = [spec.kernel, spec.initrd].filter((bytes) => bytes !== null).map(fileOf);
    this.child = spawn(
      'setpriv',
      ['--pdeathsig', 'KILL', '--', QEMU_BINARY, ...qemuArgs(spec, accelerator, role)],
      { cwd: dir, stdio: ['ignore', 'ignore', 'pipe', ramFd, this.deviceStateFd, ...boot] },
    );
    for (const fd of boot) closeSync(fd);
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr = (this.stderr + chunk.toString()).slice(-STDERR_CHARS_MAX);
    });
    this.child.once('error', (cause) => this.end(`setpriv cannot be run: ${cause.message}`));
    // `close` comes after `exit`, once all that it complained of is here.
    this.child.once('close', (code, signal) => this.end(`it ended with ${code ?? signal}`));
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** What QEMU complained about last. */
  get complaint(): string {
    return this.stderr.trim();
  }

  /** Listens on one more socket, for QEMU to call. */
  async listen(
    name: string,
    options: { pauseOnConnect?: boolean } = {},
  ): Promise<{ server: Server; path: string }> {
    const path = join(this.dir, name);
    const server = await listen(path, options);
    this.servers.push(server);
    return { server, path };
  }

  async kill(): Promise<void> {
    this.onExit = null;
    if (!this.ended && this.child.pid !== undefined) {
      const ended = new Promise((resolve) => this.child.once('close', resolve));
      this.child.kill('SIGKILL');
      await ended;
    }
    this.qmp?.close();
    this.serial?.destroy();
    for (const nic of this.nics) nic.destroy();
    for (const server of this.servers) server.close();
    closeSync(this.deviceStateFd);
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** What closes its sockets has ended, or is about to: then it says why. */
  private async endedByItself(): Promise<QemuError | null> {
    const endAt = Date.now() + END_MS_MAX;
    while (!this.ended && Date.now() < endAt) await sleep(END_REST_MS);
    return this.ended;
  }

  private async connect(servers: readonly Server[]): Promise<void> {
    const [qmp, serial, ...nics] = await Promise.all(servers.map((server) => this.accept(server)));
    this.serial = serial;
    this.nics = nics;
    this.qmp = await QmpClient.open(qmp);
    const [major, minor] = this.qmp.version.split('.').map(Number);
    if (major < 7 || (major === 7 && minor < 2))
      throw new QemuError('QEMU_TOO_OLD', `QEMU ${this.qmp.version} is here, 7.2 is the oldest`);
  }

  private accept(server: Server): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new QemuError('QEMU_START', `QEMU did not start in ${START_MS_MAX} ms`)),
        START_MS_MAX,
      );
      server.once('connection', (socket) => {
        clearTimeout(timer);
        server.close();
        resolve(socket);
      });
      const ended = (): void => {
        clearTimeout(timer);
        reject(this.ended ?? new QemuError('QEMU_START', 'QEMU did not start'));
      };
      if (this.ended) ended();
      this.child.once('close', ended);
      this.child.once('error', ended);
    });
  }

  private end(how: string): void {
    if (this.ended) return;
    const said = this.complaint === '' ? '' : `: ${this.complaint}`;
    this.ended = new QemuError('QEMU_ENDED', `QEMU is gone, ${how}${said}`);
    this.onExit?.(this.ended);
  }
}

function fileOf(bytes: Uint8Array): number {
  const fd = memoryFile('mirror-boot');
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
  return fd;
}

function listen(path: string, options: ServerOpts = {}): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer(options);
    server.once('error', reject);
    server.listen(path, () => {
      chmodSync(path, 0o600);
      resolve(server);
    });
  });
}
