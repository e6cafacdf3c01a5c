/** What this host has for QEMU machines: the binary, and an accelerator that guests can use. */
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Accelerator } from './qemu-args.js';

export const QEMU_BINARY = 'qemu-system-x86_64';
/** A KVM without one of these is a software one, on which most guests do not run. */
const HARDWARE_KVM = ['/sys/module/kvm_intel', '/sys/module/kvm_amd'];

function inPath(name: string): boolean {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  return folders.some((folder) => existsSync(join(folder, name)));
}

/** What to install before a QEMU machine can be made here; empty: nothing. */
export function whatQemuNeeds(): string {
  if (process.platform !== 'linux') return 'QEMU machines need Linux';
  if (!inPath(QEMU_BINARY)) return `${QEMU_BINARY} is not installed: apt install qemu-system-x86`;
  return inPath('setpriv') ? '' : 'setpriv is not installed: apt install util-linux';
}

export function kvmIsUsable(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return false;
  }
  return HARDWARE_KVM.some((module) => existsSync(module));
}

export function pickAccelerator(): Accelerator {
  return kvmIsUsable() ? 'kvm' : 'tcg';
}
