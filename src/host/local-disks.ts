/**
 * The disks of a VM as files of this host: looked at before anything is started, and again by a
 * standby, which opens its own at the same paths. Their content is not mirrored; what that may
 * cost is refused unless a person says so.
 */
import { imageFacts, ImageError } from '../disk/image-file.js';
import type { DiskSpec } from '../machine/machine.js';
import type { DiskConfig } from './disk-config.js';
import type { VmConfig } from './vm-config.js';
import { VmProcessError } from './vm-process-error.js';

/** What is wrong with each of them here; none: nothing. */
export async function faultsOfDisks(disks: readonly DiskConfig[]): Promise<string[]> {
  const looks = await Promise.all(disks.map((disk) => look(disk)));
  return looks.flatMap((found, index) =>
    typeof found === 'string' ? [`disks.${index}.file: ${found}`] : [],
  );
}

/**
 * Their formats and sizes, which are kept: what a guest writes to a raw disk, be it the beginning
 * of another format, does not change what the disk is.
 */
export async function settledDisks(disks: readonly DiskConfig[]): Promise<DiskConfig[]> {
  const settled: DiskConfig[] = [];
  for (const disk of disks) {
    const found = await look(disk);
    if (typeof found === 'string')
      throw new VmProcessError('BAD_DISK', `disk ${disk.id}: ${found}`);
    settled.push(found);
  }
  return settled;
}

async function look(disk: DiskConfig): Promise<DiskConfig | string> {
  const { file, format, readOnly } = disk;
  try {
    const facts = await imageFacts(file, { format, readOnly });
    if (disk.bytes === null || disk.bytes === facts.bytes) return { ...disk, ...facts };
    return `${file} is a disk of ${facts.bytes} bytes, not ${disk.bytes}`;
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    return error.absent ? `${error.message}: ${howToMake(disk)}` : error.message;
  }
}

/** An image that is made silently would hide a wrong path. */
function howToMake({ file, format, bytes }: DiskConfig): string {
  const kind = format ?? (file.endsWith('.qcow2') ? 'qcow2' : 'raw');
  const make = `qemu-img create -f ${kind} ${file} ${bytes ?? 'SIZE'}`;
  return `put it there, or make an empty one with ${make}`;
}

export function diskSpecs({ boot, disks }: VmConfig): DiskSpec[] {
  return disks.map(({ id, file: path, format, readOnly, model }) => {
    if (format === null) throw new VmProcessError('BAD_DISK', `disk ${id} was not looked at`);
    return { id, path, format, readOnly, model, boot: boot.disk === id };
  });
}

function writableDisks({ disks }: VmConfig): string {
  const writable = disks.filter(({ readOnly }) => !readOnly);
  return writable.map(({ id, file }) => `${id} (${file})`).join(', ');
}

/** `allowed`: a person said so. `nothing`: what was not done. */
export function refuseUnsafeDisks(vm: VmConfig, allowed: boolean, nothing: string): void {
  const disks = writableDisks(vm);
  if (disks === '' || allowed) return;
  throw new VmProcessError(
    'UNSAFE_DISKS',
    `${vm.name} writes to disks that are not mirrored: ${disks}. After a takeover it would go on ` +
      'with what the other host has at the same path, which does not fit its memory: its files ' +
      `may be damaged. ${nothing}. Make them readonly: true, run it without a peer, or take the ` +
      'danger with --unsafe-disks',
  );
}

/** As long as the VM is mirrored on a person's word. */
export function unsafeDisksWarning(vm: VmConfig | null): { code: string; text: string }[] {
  const disks = vm?.unsafeDisks ? writableDisks(vm) : '';
  if (disks === '') return [];
  const text =
    `what the VM writes to ${disks} is not mirrored: after a takeover it goes on with what the ` +
    'new host has at the same path, and its files may be damaged (--unsafe-disks)';
  return [{ code: 'UNSAFE_DISKS', text }];
}
