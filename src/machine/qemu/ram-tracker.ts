/**
 * Marks the pages of a RAM file that changed since the last capture and copies them. They are found
 * by comparing them with a copy (pages that were never written are skipped), or come by COLO, which
 * marks them and keeps the copy. Runs in the capture worker, on a mapping of its own.
 */
import { CaptureOverflow } from '../capture-overflow.js';
import { PAGE_BYTES, type PageRange } from '../machine.js';
import { ColoPages } from './colo-pages.js';
import { loadRamKernels, type RamKernels } from '../ram-kernels.js';
import { Access, mapInto } from './libc.js';
import type { MemoryAudit } from './memory-audit.js';
import { writtenExtents, type Extent } from './ram-file.js';

const WASM_PAGE_BYTES = 65_536;
/** Keeps RAM and copy from sharing cache sets line by line. */
const SKEW_BYTES = 2048 + 64;
const MAP_UNIT_PAGES = 16;

export interface Found {
  readonly dirtyCount: number;
  readonly pageCount: number;
}

export type FoundBy = 'compare' | 'colo';

export class RamTracker {
  /** Where COLO puts its pages. */
  readonly coloPages: ColoPages;
  private readonly foundBy: FoundBy;
  private readonly fd: number;
  private readonly bytes: number;
  private readonly memory: WebAssembly.Memory;
  private readonly kernels: RamKernels;
  private readonly mapPages: number;
  private readonly copy: number;
  private readonly dirty: number;
  private readonly taken: number;
  private readonly list: number;
  private readonly ram: Buffer;
  private readonly copied: Buffer;

  static async create(fd: number, bytes: number, foundBy: FoundBy): Promise<RamTracker> {
    const pages = bytes / PAGE_BYTES;
    const room = 2 * bytes + SKEW_BYTES + pages * 6 + 4 * PAGE_BYTES;
    const memory = new WebAssembly.Memory({ initial: Math.ceil(room / WASM_PAGE_BYTES) });
    mapInto(memory, 0, { fd, bytes, access: Access.read });
    return new RamTracker({ fd, bytes, foundBy }, memory, await loadRamKernels(memory));
  }

  private constructor(
    file: { fd: number; bytes: number; foundBy: FoundBy },
    memory: WebAssembly.Memory,
    kernels: RamKernels,
  ) {
    const { fd, bytes, foundBy } = file;
    this.foundBy = foundBy;
    this.fd = fd;
    this.bytes = bytes;
    this.memory = memory;
    this.kernels = kernels;
    this.mapPages = Math.ceil(bytes / PAGE_BYTES / MAP_UNIT_PAGES) * MAP_UNIT_PAGES;
    this.ram = Buffer.from(memory.buffer, 0, bytes);
    this.list = bytes;
    this.dirty = this.list + this.mapPages * 4;
    this.taken = this.dirty + this.mapPages;
    this.copy = Math.ceil((this.taken + this.mapPages) / 64) * 64 + SKEW_BYTES;
    this.copied = Buffer.from(memory.buffer, this.copy, bytes);
    this.coloPages = new ColoPages(this.copied, this.marks());
  }

  /** How many pages COLO has missed: these are marked too. */
  audit(audit: MemoryAudit): number {
    const { ram, copied: copy, coloPages: pages } = this;
    return audit.look({ ram, copy, pages }, writtenExtents(this.fd, this.bytes), this.marks());
  }

  /** What has been written up to now does not count as dirty. */
  restart(): void {
    this.marks().fill(0);
    if (this.foundBy === 'colo') return;
    for (const { from, to } of writtenExtents(this.fd, this.bytes)) {
      const at = from * PAGE_BYTES;
      this.kernels.copy(this.copy + at, at, (to - from) * PAGE_BYTES);
    }
  }

  /** One byte for each page, not zero if it is dirty. */
  private marks(): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.dirty, this.mapPages);
  }

  /** Lists the pages to capture. Forgets nothing: without a `take`, the next finds them again. */
  find(also: PageRange | null): Found {
    const { kernels, dirty, taken, mapPages } = this;
    const extents = this.foundBy === 'compare' || also ? writtenExtents(this.fd, this.bytes) : [];
    if (this.foundBy === 'compare') this.compare(extents);
    const dirtyCount = kernels.scan(dirty, mapPages, this.list);
    if (!also) return { dirtyCount, pageCount: dirtyCount };
    const maps = new Uint8Array(this.memory.buffer, dirty, 2 * mapPages);
    maps.copyWithin(mapPages, 0, mapPages);
    const end = also.from + also.count;
    for (const { from, to } of extents)
      if (from < end && to > also.from)
        maps.fill(1, mapPages + Math.max(from, also.from), mapPages + Math.min(to, end));
    return { dirtyCount, pageCount: kernels.scan(taken, mapPages, this.list) };
  }

  private compare(extents: readonly Extent[]): void {
    const { kernels, dirty, copy } = this;
    this.marks().fill(0);
    for (const { from, to } of extents) {
      const at = from * PAGE_BYTES;
      kernels.compare(at, copy + at, to - from, dirty + from);
    }
  }

  /** Copies what `find` listed, from RAM, or from the copy that COLO keeps. */
  take(
    { pageIndices, pageBytes }: { pageIndices: Uint32Array; pageBytes: Uint8Array },
    pageCount: number,
    from: 'ram' | 'copy',
  ): void {
    const room = Math.min(pageIndices.length, pageBytes.length / PAGE_BYTES);
    if (pageCount > room) throw new CaptureOverflow(pageCount, room);
    const list = new Uint32Array(this.memory.buffer, this.list, pageCount);
    pageIndices.set(list);
    const into = Buffer.from(pageBytes.buffer, pageBytes.byteOffset, pageBytes.length);
    const source = from === 'ram' ? this.ram : this.copied;
    eachRun(list, (page, index, count) => {
      source.copy(into, index * PAGE_BYTES, page * PAGE_BYTES, (page + count) * PAGE_BYTES);
    });
  }

  /** What was taken is not dirty; the copy gets it from there, for the VM may run again. */
  settle(pageBytes: Uint8Array, pageCount: number): void {
    if (this.foundBy === 'colo') {
      this.marks().fill(0);
      return;
    }
    const list = new Uint32Array(this.memory.buffer, this.list, pageCount);
    const taken = Buffer.from(pageBytes.buffer, pageBytes.byteOffset, pageBytes.length);
    eachRun(list, (page, index, count) => {
      const end = (index + count) * PAGE_BYTES;
      taken.copy(this.copied, page * PAGE_BYTES, index * PAGE_BYTES, end);
    });
  }
}

/** Pages that follow each other go as one. */
function eachRun(
  list: Uint32Array,
  visit: (page: number, index: number, count: number) => void,
): void {
  for (let index = 0; index < list.length;) {
    let count = 1;
    while (index + count < list.length && list[index + count] === list[index] + count) count += 1;
    visit(list[index], index, count);
    index += count;
  }
}
