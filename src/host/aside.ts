/** The image of a VM that had to stop for one that was forced: kept for a person, never deleted. */
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { PAGE_BYTES, type Machine } from '../machine/machine.js';

const WRITE_BYTES = 4 << 20;

/** Memory as it is, and the device state; the machine stands still. */
export async function writeImage(dir: string, machine: Machine): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const { memory, offset, bytes } = machine.ram;
  await written(join(dir, 'memory.bin'), async (file) => {
    for (let at = 0; at < bytes; at += WRITE_BYTES) {
      const part = new Uint8Array(memory.buffer, offset + at, Math.min(WRITE_BYTES, bytes - at));
      // The memory may be shared with other threads, which no file takes.
      await file.write(Uint8Array.from(part));
    }
  });
  const { pageCount } = machine.info;
  const into = {
    pageIndices: new Uint32Array(new SharedArrayBuffer(pageCount * 4)),
    pageBytes: new Uint8Array(new SharedArrayBuffer(pageCount * PAGE_BYTES)),
    ...{ pageCount: 0, deviceState: new Uint8Array(0) },
  };
  await machine.capture(into, null);
  await written(join(dir, 'devices.bin'), async (file) => {
    await file.write(Uint8Array.from(into.deviceState));
  });
}

async function written(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'w', 0o600);
  try {
    await write(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** What is kept aside of a VM, for as long as a person leaves it there. */
export function keptAside(stateDir: string, vm: string): string[] {
  const dir = join(stateDir, 'aside');
  if (!existsSync(dir)) return [];
  const ours = new RegExp(`^${vm}-\\d+$`);
  return readdirSync(dir)
    .filter((name) => ours.test(name))
    .map((name) => join(dir, name));
}
