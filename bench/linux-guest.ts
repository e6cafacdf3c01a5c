/**
 * The Linux guest of the benches, built out of Debian's packages. With `MIRROR_LINUX` it is kept in
 * that folder for the next bench; else it goes with the process.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { buildLinux, LINUX_AMD64_CMDLINE, type LinuxGuest } from '../src/guest/linux-builder.js';
import { whatQemuNeeds } from '../src/machine/qemu/qemu-host.js';
import { whatLinuxNeeds } from '../test/guest/guest-rig.js';

const KEPT = process.env['MIRROR_LINUX'];

/** Empty: a Linux can be run by QEMU here. */
export function whatLinuxOnQemuNeeds(): string {
  return whatQemuNeeds() || (kept() ? '' : whatLinuxNeeds());
}

function kept(): LinuxGuest | null {
  if (KEPT === undefined) return null;
  const [kernel, initrd] = ['vmlinuz', 'initrd.img'].map((name) => resolve(join(KEPT, name)));
  return existsSync(kernel) && existsSync(initrd)
    ? { kernel, initrd, cmdline: LINUX_AMD64_CMDLINE }
    : null;
}

export async function linuxGuest(): Promise<LinuxGuest> {
  const found = kept();
  if (found) return found;
  const outDir = KEPT ?? temporaryFolder();
  const log = (line: string): void => void process.stderr.write(`${line}\n`);
  return buildLinux({ outDir, log, architecture: 'amd64' });
}

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mirror-linux-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
