/** Disk images on QEMU's command line: nothing about them is left to QEMU's guesses. */
import type { DiskSpec } from '../machine.js';

type Model = 'virtio' | 'ide';

/** Any guest that starts by its firmware has a driver for IDE, which cannot be read-only. */
function modelOf({ model, readOnly }: DiskSpec, linux: boolean): Model {
  if (model !== 'auto') return model;
  return linux || readOnly ? 'virtio' : 'ide';
}

/** The format is stated, else a guest could make its raw disk look like one that names files. */
function blockdev({ path, format, readOnly }: DiskSpec, node: string): string {
  const access = { 'read-only': readOnly, 'auto-read-only': false };
  const file = { driver: 'file', filename: path, locking: 'auto', ...access };
  const alone = format === 'qcow2' ? { backing: null } : {};
  return JSON.stringify({ 'driver': format, 'node-name': node, ...access, ...alone, file });
}

/** An error is the guest's to see: a VM that QEMU stops by itself would look like a running one. */
const ON_ERROR = 'werror=report,rerror=report';

export function diskArgs(disks: readonly DiskSpec[], linux: boolean): string[] {
  let ideCount = 0;
  return disks.flatMap((disk, index) => {
    const node = `disk${index}`;
    let device = 'virtio-blk-pci';
    if (modelOf(disk, linux) === 'ide') {
      device = `ide-hd,bus=ide.${ideCount >> 1},unit=${ideCount & 1}`;
      ideCount += 1;
    }
    const order = disk.boot ? ',bootindex=0' : '';
    return [
      ...['-blockdev', blockdev(disk, node)],
      ...['-device', `${device},drive=${node},serial=${disk.id},${ON_ERROR}${order}`],
    ];
  });
}
