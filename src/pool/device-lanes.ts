/**
 * Which slots of a device are this process's to write. A host claims its slots on the device, once;
 * its processes share them out among themselves by locks of the kernel, a lane for each operation.
 * A lock ends with its holder, however that dies, and not before its last write has ended.
 */
import { randomUUID } from 'node:crypto';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { open, readFile, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MirrorError } from '../core/errors.js';
import type { DeviceFile } from './device-file.js';
import type { DeviceLayout } from './device-layout.js';
import { lockNow } from './libc.js';
import { COPY_BYTES } from './slot.js';

const TRY_AGAIN_MS = 3;
/** Hosts that claim at the same moment can spoil a number for each other. */
const CLAIM_JITTER_MS = 60;
const ZEROS = Buffer.alloc(COPY_BYTES);

export interface Lane {
  readonly slot: number;
  release(): void;
}

export class DeviceLanes {
  private readonly dir: string;
  private readonly layout: DeviceLayout;
  private host: number | null = null;

  /** `stateDir`: of the host; what it remembers there of the device is its own alone. */
  constructor(stateDir: string, layout: DeviceLayout) {
    this.dir = join(stateDir, 'device-arbiter', layout.id);
    this.layout = layout;
  }

  /** `null` if all lanes were taken until `endAtMs`. */
  async acquire(file: DeviceFile, endAtMs: number): Promise<Lane | null> {
    this.host ??= await this.claimed(file, endAtMs);
    const { host } = this;
    if (host === null) return null;
    const { lanes } = this.layout;
    const names = Array.from({ length: lanes }, (_, lane) => `lane-${lane}`);
    const held = await this.lockOne(names, endAtMs);
    return held && { slot: host * lanes + held.index, release: held.release };
  }

  private async lockOne(
    names: readonly string[],
    endAtMs: number,
  ): Promise<{ index: number; release(): void } | null> {
    mkdirSync(this.dir, { recursive: true, mode: 0o700 });
    for (;;) {
      for (const [index, name] of names.entries()) {
        const fd = openSync(join(this.dir, name), 'a', 0o600);
        if (lockNow(fd)) return { index, release: () => closeSync(fd) };
        closeSync(fd);
      }
      if (performance.now() >= endAtMs) return null;
      await sleep(TRY_AGAIN_MS);
    }
  }

  /** The number that this host has on the device, claimed if it has none yet. */
  private async claimed(file: DeviceFile, endAtMs: number): Promise<number | null> {
    const known = await this.remembered();
    if (known !== null) return known;
    const lock = await this.lockOne(['claim'], endAtMs);
    if (!lock) return null;
    try {
      const meanwhile = await this.remembered();
      if (meanwhile !== null) return meanwhile;
      const host = await claimHost(file, this.layout);
      await this.remember(host);
      return host;
    } finally {
      lock.release();
    }
  }

  /** What a copy of this folder remembers is the original's: a copy claims slots of its own. */
  private async remembered(): Promise<number | null> {
    const text = await readFile(this.path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    if (text === null) return null;
    const [number = '', folder = ''] = text.split('\n');
    const host = /^\d+$/.test(number) ? Number(number) : this.layout.hosts;
    if (host >= this.layout.hosts || folder === '')
      throw new MirrorError(
        'BAD_STATE',
        `${this.path} is damaged: the device was left alone; remove that file, and this host ` +
          'claims other slots',
      );
    return folder === (await folderIdentity(this.dir)) ? host : null;
  }

  private get path(): string {
    return join(this.dir, 'host');
  }

  /** Durable before any slot is written. */
  private async remember(host: number): Promise<void> {
    const file = await open(`${this.path}.new`, 'w', 0o600);
    try {
      await file.writeFile(`${host}\n${await folderIdentity(this.dir)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${this.path}.new`, this.path);
    const folder = await open(this.dir, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }
}

async function folderIdentity(dir: string): Promise<string> {
  const { ino } = await stat(dir);
  const machine = await readFile('/etc/machine-id', 'utf8').catch(() => '');
  return `${machine.trim()}/${ino}`;
}

/**
 * A splitter for each number: write the own name, see that the door is open, close it, and look
 * whether the name still stands. Of all who ever try, at most one finds that, whatever the pauses:
 * a second one would have had to write its name both before and after the first. A claimant that
 * dies in between leaves a number that nobody has.
 *
 * Source: Moir and Anderson, Wait-free algorithms for fast, long-lived renaming (1995).
 */
async function claimHost(file: DeviceFile, layout: DeviceLayout): Promise<number> {
  const name = Buffer.alloc(COPY_BYTES);
  name.write(randomUUID());
  const closed = Buffer.alloc(COPY_BYTES, 1);
  await sleep(Math.random() * CLAIM_JITTER_MS);
  const first = Math.floor(Math.random() * layout.hosts);
  for (let step = 0; step < layout.hosts; step += 1) {
    const host = (first + step) % layout.hosts;
    const [nameAt, doorAt] = [layout.claimOffset(host), layout.claimOffset(host) + COPY_BYTES];
    const isOpen = async (): Promise<boolean> =>
      (await file.read(doorAt, COPY_BYTES)).equals(ZEROS);
    if (!(await isOpen())) continue;
    await file.write(nameAt, name);
    if (!(await isOpen())) continue;
    await file.write(doorAt, closed);
    if ((await file.read(nameAt, COPY_BYTES)).equals(name)) return host;
  }
  throw new MirrorError(
    'TOO_MANY_HOSTS',
    `the device was made for ${layout.hosts} hosts, and as many have claimed it: nothing was ` +
      'done; make a larger one by mirror arbiter init --hosts',
  );
}
