/**
 * A NIC's cable into the user-mode network of `passt`, which speaks for the guest with sockets of
 * the host. Connections end with it, so also at a takeover.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Forward } from './attach.js';
import { NetworkError } from './network-error.js';
import type { NicLink } from './nic-link.js';
import { ownFolder } from './own-folder.js';
import { StreamNic } from './stream-nic.js';

const RESTART_MS = 1_000;

/** What is missing is said before a VM is started. */
export function checkPasst(): void {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  for (const name of ['passt', 'setpriv'])
    if (!folders.some((folder) => existsSync(join(folder, name)))) {
      const what = name === 'passt' ? 'passt' : 'util-linux';
      throw new NetworkError(
        'PASST_MISSING',
        `user: ${name} is not installed: apt install ${what}`,
      );
    }
}

const forwardArg = ({ address, hostPort, guestPort }: Forward): string =>
  `${address === '' ? '' : `${address}/`}${hostPort}:${guestPort}`;

export function passtArgs(socket: string, forwards: readonly Forward[]): string[] {
  return [
    ...['--foreground', '--quiet', '--one-off', '--socket', socket],
    // As root it would become nobody, who may not enter our folder.
    ...(process.getuid?.() === 0 ? ['--runas', '0'] : []),
    ...forwards.flatMap((forward) => ['--tcp-ports', forwardArg(forward)]),
  ];
}

export class UserLink implements NicLink {
  onFrame: ((frame: Uint8Array) => void) | null = null;
  private readonly forwards: readonly Forward[];
  private readonly dir = ownFolder('passt');
  private child: ChildProcess | null = null;
  private nic: StreamNic | null = null;
  private timer: NodeJS.Timeout | null = null;
  private closed = false;

  constructor(forwards: readonly Forward[]) {
    this.forwards = forwards;
    this.start();
  }

  get connected(): boolean {
    return this.nic?.connected ?? false;
  }

  send(frame: Uint8Array): void {
    this.nic?.send(frame);
  }

  close(): void {
    this.closed = true;
    if (this.timer) clearTimeout(this.timer);
    this.nic?.close();
    this.child?.kill('SIGKILL');
    rmSync(this.dir, { recursive: true, force: true });
  }

  private start(): void {
    const path = join(this.dir, 'passt.sock');
    rmSync(path, { force: true });
    const args = ['--pdeathsig', 'KILL', '--', 'passt', ...passtArgs(path, this.forwards)];
    this.child = spawn('setpriv', args, { stdio: 'ignore' });
    this.child.once('error', () => this.ended());
    this.child.once('exit', () => this.ended());
    const nic = new StreamNic({ path });
    nic.onFrame = (frame) => this.onFrame?.(frame);
    this.nic = nic;
  }

  private ended(): void {
    if (this.closed || this.timer) return;
    this.nic?.close();
    this.timer = setTimeout(() => {
      this.timer = null;
      this.start();
    }, RESTART_MS);
  }
}
