/**
 * Marks the pages of a RAM file that changed since the last capture and copies them. They are found
 * by comparing them with a copy (pages that were never written are skipped), or told by who knows.
 * Runs in the capture worker, on a mapping of its own.
 */
import { CaptureOverflow } from '../capture-overflow.js';
import { PAGE_BYTES, type PageRange } from '../machine.js';
import { loadRamKernels, type RamKernels } from '../ram-kernels.js';
import { Access, mapInto } from './libc.js';
import { writtenExtents, type Extent } from './ram-file.js';

const WASM_PAGE_BYTES = 65_536;
/** Keeps RAM and copy from sharing cache sets line by line. */
const SKEW_BYTES = 2048 + 64;
const MAP_UNIT_PAGES = 16;

export interface Found {
  readonly dirtyCount: number;
  readonly pageCount: number;
}

/** Of a tracker that is told, there is no copy. */
export type FoundBy = 'compare' | 'marks';

export class RamTracker {
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

  static async create(fd: number, bytes: number, foundBy: FoundBy): Promise<RamTracker> {
    const pages = bytes / PAGE_BYTES;
    const copyBytes = foundBy === 'compare' ? bytes + SKEW_BYTES : 0;
    const room = bytes + copyBytes + pages * 6 + 4 * PAGE_BYTES;
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
    this.list = bytes;
    this.dirty = this.list + this.mapPages * 4;
    this.taken = this.dirty + this.mapPages;
    this.copy = Math.ceil((this.taken + this.mapPages) / 64) * 64 + SKEW_BYTES;
  }

  /** What has been written up to now does not count as dirty. */
  restart(): void {
    this.marks().fill(0);
    if (this.foundBy === 'marks') return;
    for (const { from, to } of writtenExtents(this.fd, this.bytes)) {
      const at = from * PAGE_BYTES;
      this.kernels.copy(this.copy + at, at, (to - from) * PAGE_BYTES);
    }
  }

  /** One byte for each page, not zero if it is dirty. */
  marks(): Uint8Array {
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

  /** Copies what `find` listed. */
  take(pageIndices: Uint32Array, pageBytes: Uint8Array, pageCount: number): void {
    const room = Math.min(pageIndices.length, pageBytes.length / PAGE_BYTES);
    if (pageCount > room) throw new CaptureOverflow(pageCount, room);
    const list = new Uint32Array(this.memory.buffer, this.list, pageCount);
    pageIndices.set(list);
    this.eachRun(list, (page, index, count) => {
      const from = new Uint8Array(this.memory.buffer, page * PAGE_BYTES, count * PAGE_BYTES);
      pageBytes.set(from, index * PAGE_BYTES);
    });
  }

  /** What was taken is not dirty; the copy gets it from there, for the VM may run again. */
  settle(pageBytes: Uint8Array, pageCount: number): void {
    if (this.foundBy === 'marks') {
      this.marks().fill(0);
      return;
    }
    const list = new Uint32Array(this.memory.buffer, this.list, pageCount);
    const copy = new Uint8Array(this.memory.buffer, this.copy, this.bytes);
    this.eachRun(list, (page, index, count) => {
      const from = pageBytes.subarray(index * PAGE_BYTES, (index + count) * PAGE_BYTES);
      copy.set(from, page * PAGE_BYTES);
    });
  }

  /** Pages that follow each other go as one. */
  private eachRun(
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
}
