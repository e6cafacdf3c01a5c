/** A device for tests: a preallocated file, or a loop device where that can be had. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeviceArbiter, type DeviceIo } from '../../src/pool/device-arbiter.js';
import { formatDevice } from '../../src/pool/device-format.js';
import type { Arbiter } from '../../src/pool/arbiter.js';
import { DeviceFile } from '../../src/pool/device-file.js';
import type { ArbiterRig } from './arbiter-acceptance.js';

export const DEVICE_BYTES = 4 << 20;
const HOSTS = 6;

export class DeviceRig implements ArbiterRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-device-'));
  readonly path = join(this.dir, 'device');
  readonly faults: string[] = [];
  private nextHost = 0;

  static async make(bytes = DEVICE_BYTES): Promise<DeviceRig> {
    const rig = new DeviceRig();
    writeFileSync(rig.path, '');
    truncateSync(rig.path, bytes);
    await formatDevice(rig.path, { hosts: null, vms: null, force: false });
    return rig;
  }

  /** The state directory of a host. */
  stateDir(host: number): string {
    const dir = join(this.dir, `host-${host}`);
    mkdirSync(dir, { recursive: true });
    return dir;
  }

  /** Clients take turns to be on different hosts. */
  connect(deadlineMs: number, io?: DeviceIo, host?: number): DeviceArbiter {
    const onFault = (text: string): void => void this.faults.push(text);
    const stateDir = this.stateDir(host ?? this.nextHost++ % HOSTS);
    return new DeviceArbiter(this.path, { deadlineMs, onFault, stateDir }, io);
  }

  /** The storage does what it is asked, and hangs before it says so. */
  async connectDeaf(deadlineMs: number): Promise<Arbiter> {
    let writes = 0;
    const hanging = async (file: DeviceFile, at: number, bytes: Buffer): Promise<void> => {
      await file.write(at, bytes);
      writes += 1;
      // A claim, then a ballot, and what it accepts: all in both copies.
      if (writes === 2 + 4) await new Promise((resolve) => setTimeout(resolve, 10 * deadlineMs));
    };
    const deaf = this.connect(deadlineMs, {
      open: async (path) => {
        const file = await DeviceFile.open(path);
        return {
          read: (at, bytes) => file.read(at, bytes),
          write: (at, bytes) => hanging(file, at, bytes),
          close: () => file.close(),
        };
      },
    });
    return {
      cas: (vm, revision, wish) => deaf.cas(vm, revision, wish),
      read: async () => ({ outcome: 'unknown' }),
      close: () => deaf.close(),
    };
  }

  /** The device is gone. */
  async kill(): Promise<void> {
    await rename(this.path, `${this.path}.away`);
  }

  async start(): Promise<void> {
    await rename(`${this.path}.away`, this.path);
  }

  async close(): Promise<void> {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Why there is no loop device to be had; empty: there is. */
export function whatLoopNeeds(): string {
  try {
    execFileSync('losetup', ['--find'], { stdio: 'pipe' });
    return process.getuid?.() === 0 ? '' : 'a loop device needs root';
  } catch {
    return 'there is no loop device';
  }
}

/** A block device on a file of its own. */
export class LoopDevice {
  readonly path: string;
  private readonly dir = mkdtempSync(join(tmpdir(), 'mirror-loop-'));

  constructor(bytes = DEVICE_BYTES) {
    const image = join(this.dir, 'image');
    writeFileSync(image, '');
    truncateSync(image, bytes);
    this.path = execFileSync('losetup', ['--find', '--show', image]).toString().trim();
  }

  close(): void {
    execFileSync('losetup', ['--detach', this.path]);
    rmSync(this.dir, { recursive: true, force: true });
  }
}
