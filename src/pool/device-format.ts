/** `mirror arbiter init device:/PATH`: makes a device an arbiter. */
import { MirrorError } from '../core/errors.js';
import { DeviceFile } from './device-file.js';
import { DeviceLayout, HOSTS, PLACES, placesThatFit } from './device-layout.js';
import { COPY_BYTES } from './slot.js';

/** File systems, partition tables and volume managers leave their marks at either end. */
const LOOKED_AT_BYTES = 1 << 20;
const ZEROS_BYTES = 1 << 20;

export interface FormatWish {
  /** `null`: the standard. */
  readonly hosts: number | null;
  readonly vms: number | null;
  /** A person says that what is on the device may go. */
  readonly force: boolean;
}

/** Leaves an arbiter that is there alone, and what is no arbiter untouched, unless forced. */
export async function formatDevice(path: string, wish: FormatWish): Promise<DeviceLayout> {
  const file = await DeviceFile.openUnused(path);
  try {
    const bytes = await file.bytes();
    const layout = layoutFor(path, bytes, wish);
    if (!wish.force) {
      const there = DeviceLayout.decode(await file.read(0, COPY_BYTES));
      if (there) return there;
      await refuseUnlessEmpty(file, path, bytes);
    }
    await writeAnew(file, layout);
    return layout;
  } finally {
    await file.close();
  }
}

function layoutFor(path: string, bytes: number, { hosts, vms }: FormatWish): DeviceLayout {
  const hostCount = hosts ?? HOSTS.standard;
  const places = placesThatFit(bytes, hostCount, vms ?? PLACES.standard);
  if (places >= (vms ?? 1)) return DeviceLayout.make(hostCount, places);
  const need = DeviceLayout.make(hostCount, vms ?? 1).bytes;
  throw new MirrorError(
    'REFUSED',
    `${path} has ${bytes} bytes, and ${need} are needed for ${hostCount} hosts and ${vms ?? 1} ` +
      'VMs: nothing was done; give fewer by --hosts and --vms, or a larger device',
  );
}

async function refuseUnlessEmpty(file: DeviceFile, path: string, bytes: number): Promise<void> {
  const length = Math.min(LOOKED_AT_BYTES, bytes - (bytes % COPY_BYTES));
  const end = bytes - (bytes % COPY_BYTES) - length;
  for (const offset of [0, end]) {
    const found = await file.read(offset, length);
    if (found.every((byte) => byte === 0)) continue;
    throw new MirrorError(
      'REFUSED',
      `${path} is not empty: nothing was written; give the arbiter a device of its own, or add ` +
        '--force if what is on it may go',
    );
  }
}

/** The header comes last: an arbiter is there whole or not at all. */
async function writeAnew(file: DeviceFile, layout: DeviceLayout): Promise<void> {
  for (let offset = 0; offset < layout.bytes; offset += ZEROS_BYTES)
    await file.write(offset, Buffer.alloc(Math.min(ZEROS_BYTES, layout.bytes - offset)));
  await file.write(0, layout.encode());
}
