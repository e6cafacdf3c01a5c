/** Device states by `xen-save-devices-state`, which has nothing to do with Xen. */
import { fstatSync, readSync } from 'node:fs';
import { QemuError } from './qemu-error.js';
import type { QemuProcess } from './qemu-process.js';

const DEVICE_STATE_PATH = '/proc/self/fd/4';

/** Of a VM that stands still. */
export async function saveDevices({ qmp, deviceStateFd }: QemuProcess): Promise<Uint8Array> {
  await qmp.execute('xen-save-devices-state', { filename: DEVICE_STATE_PATH, live: false });
  const bytes = Buffer.allocUnsafe(fstatSync(deviceStateFd).size);
  for (let at = 0; at < bytes.length;) {
    const read = readSync(deviceStateFd, bytes, at, bytes.length - at, at);
    if (read === 0) throw new QemuError('DEVICE_STATE', 'the saved device state is cut short');
    at += read;
  }
  return bytes;
}
