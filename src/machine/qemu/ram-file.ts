/**
 * Guest RAM as a file in memory that QEMU and our own threads map: nothing is copied between
 * them, nothing is left behind, and what the guest never touched takes no room.
 */
import { closeSync, ftruncateSync } from 'node:fs';
import { PAGE_BYTES, type GuestRam } from '../machine.js';
import { Access, mapInto, memoryFile, nextData, punchHole } from './libc.js';

const WASM_PAGE_BYTES = 65_536;

/** Page numbers from `from` up to but not including `to`. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

export class RamFile {
  readonly fd: number;
  readonly bytes: number;
  readonly ram: GuestRam;

  constructor(bytes: number) {
    this.bytes = bytes;
    this.fd = memoryFile('mirror-ram');
    ftruncateSync(this.fd, bytes);
    const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / WASM_PAGE_BYTES) });
    mapInto(memory, 0, { fd: this.fd, bytes, access: Access.readWrite });
    this.ram = { memory, offset: 0, bytes };
  }

  clear(): void {
    punchHole(this.fd, this.bytes);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** The pages of a RAM file that were ever written; all others are zero. */
export function writtenExtents(fd: number, bytes: number): Extent[] {
  const extents: Extent[] = [];
  for (let at = 0; at < bytes;) {
    const found = nextData(fd, at);
    if (!found) break;
    extents.push({ from: found.from / PAGE_BYTES, to: Math.ceil(found.to / PAGE_BYTES) });
    at = found.to;
  }
  return extents;
}
