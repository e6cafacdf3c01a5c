/**
 * Finds the pages of a RAM file that changed since the last capture, by comparing them with a copy.
 * Pages that were never written are skipped. Runs in the capture worker, on a mapping of its own.
 */
import { CaptureOverflow } from '../capture-overflow.js';
import { PAGE_BYTES, type PageRange } from '../machine.js';
import { loadRamKernels, type RamKernels } from '../ram-kernels.js';
import { Access, mapInto } from './libc.js';
import { writtenExtents } from './ram-file.js';

const WASM_PAGE_BYTES = 65_536;
/** Keeps RAM and copy from sharing cache sets line by line. */
const SKEW_BYTES = 2048 + 64;
const MAP_UNIT_PAGES = 16;

export interface Found {
  readonly dirtyCount: number;
  readonly pageCount: number;
}

export class RamTracker {
  private readonly fd: number;
  private readonly bytes: number;
  private readonly memory: WebAssembly.Memory;
  private readonly kernels: RamKernels;
  private readonly mapPages: number;
  private readonly copy: number;
  private readonly dirty: number;
  private readonly taken: number;
  private readonly list: number;

  static async create(fd: number, bytes: number): Promise<RamTracker> {
    const pages = bytes / PAGE_BYTES;
    const room = 2 * bytes + SKEW_BYTES + pages * 6 + 4 * PAGE_BYTES;
    const memory = new WebAssembly.Memory({ initial: Math.ceil(room / WASM_PAGE_BYTES) });
    mapInto(memory, 0, { fd, bytes, access: Access.read });
    return new RamTracker(fd, bytes, memory, await loadRamKernels(memory));
  }

  private constructor(fd: number, bytes: number, memory: WebAssembly.Memory, kernels: RamKernels) {
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
    for (const { from, to } of writtenExtents(this.fd, this.bytes)) {
      const at = from * PAGE_BYTES;
      this.kernels.copy(this.copy + at, at, (to - from) * PAGE_BYTES);
    }
  }

  /** Lists the pages to capture. Forgets nothing: without a `take`, the next finds them again. */
  find(also: PageRange | null): Found {
    const { kernels, dirty, taken, mapPages } = this;
    const maps = new Uint8Array(this.memory.buffer, dirty, 2 * mapPages);
    maps.fill(0);
    const extents = writtenExtents(this.fd, this.bytes);
    for (const { from, to } of extents) {
      const at = from * PAGE_BYTES;
      kernels.compare(at, this.copy + at, to - from, dirty + from);
    }
    const dirtyCount = kernels.scan(dirty, mapPages, this.list);
    if (!also) return { dirtyCount, pageCount: dirtyCount };
    maps.copyWithin(mapPages, 0, mapPages);
    const end = also.from + also.count;
    for (const { from, to } of extents)
      if (from < end && to > also.from)
        maps.fill(1, mapPages + Math.max(from, also.from), mapPages + Math.min(to, end));
    return { dirtyCount, pageCount: kernels.scan(taken, mapPages, this.list) };
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

  /** The copy holds what was taken: from the taken bytes, for the VM may run again. */
  settle(pageBytes: Uint8Array, pageCount: number): void {
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
