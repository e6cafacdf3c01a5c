/** What this host has for QEMU machines: the binary, and an accelerator that guests can use. */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

export const QEMU_BINARY = 'qemu-system-x86_64';
/** A KVM without one of these is a software one, on which most guests do not run. */
const HARDWARE_KVM = ['/sys/module/kvm_intel', '/sys/module/kvm_amd'];

function inPath(name: string): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

export function qemuPath(): string {
  return inPath(QEMU_BINARY) ?? '';
}

/** What to install before a QEMU machine can be made here; empty: nothing. */
export function whatQemuNeeds(): string {
  if (process.platform !== 'linux') return 'QEMU machines need Linux';
  if (!inPath(QEMU_BINARY)) return `${QEMU_BINARY} is not installed: apt install qemu-system-x86`;
  return inPath('setpriv') ? '' : 'setpriv is not installed: apt install util-linux';
}

/** Why there is no KVM here, be it one in software; empty: there is. */
export function whatKvmNeeds(): string {
  if (!existsSync('/dev/kvm')) return 'this host has no /dev/kvm';
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return '';
  } catch {
    return '/dev/kvm is not allowed to this user';
  }
}

/** For any guest. */
export function kvmIsUsable(): boolean {
  return whatKvmNeeds() === '' && HARDWARE_KVM.some((module) => existsSync(module));
}
