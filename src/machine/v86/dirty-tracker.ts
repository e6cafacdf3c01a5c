/**
 * Finds the pages that the guest wrote since the last capture. `patched`: v86's own wasm, patched
 * at build time, marks them in a byte map. `compare`: every page is compared with a shadow copy.
 * An audit runs the compare beside the map and counts what the map missed; the pages it finds are
 * captured all the same.
 *
 * Everything lives in v86's memory, so that the kernels of `wasm/ram/` can work on it.
 */
import type { GuestRam, PageRange } from '../machine.js';
import { PAGE_BYTES } from '../machine.js';
import type { RamKernels } from '../ram-kernels.js';
import type { V86Exports } from './internals.js';

const BATCH_PAGES = 256;
/** Keeps RAM and shadow from sharing cache sets line by line. */
const SHADOW_SKEW_BYTES = 2048 + 64;

export interface DirtySet {
  /** Pages found dirty. */
  readonly dirtyCount: number;
  /** Pages to capture: the dirty ones and the extra range. */
  readonly pageCount: number;
  /** Found by the audit alone; `null` when there was none. */
  readonly missedCount: number | null;
}

export class DirtyTracker {
  private readonly exports: V86Exports;
  private readonly kernels: RamKernels;
  private readonly ram: GuestRam;
  private readonly pageCount: number;
  private readonly patched: boolean;
  private readonly auditEvery: number;
  /** Marked since the last capture. */
  private readonly map: number;
  /** Scratch: what this capture takes, or what an audit finds. */
  private readonly taken: number;
  /** Marked since the last audit. */
  private readonly sinceAudit: number;
  private readonly list: number;
  private readonly staging: number;
  private readonly shadow: number;
  private listed = 0;
  private capturesToAudit: number;

  constructor(
    exports: V86Exports,
    kernels: RamKernels,
    ram: GuestRam,
    options: { tracking: 'patched' | 'compare'; auditEvery: number },
  ) {
    this.exports = exports;
    this.kernels = kernels;
    this.ram = ram;
    this.pageCount = ram.bytes / PAGE_BYTES;
    this.patched = options.tracking === 'patched';
    this.auditEvery = this.patched ? options.auditEvery : 0;
    this.capturesToAudit = this.auditEvery;
    this.map = this.allocate(this.pageCount);
    this.taken = this.allocate(this.pageCount);
    this.sinceAudit = this.allocate(this.pageCount);
    this.list = this.allocate(this.pageCount * 4);
    this.staging = this.allocate(BATCH_PAGES * PAGE_BYTES);
    this.shadow = this.usesShadow ? this.allocate(ram.bytes) + SHADOW_SKEW_BYTES : 0;
    if (this.patched) exports.mirror_track!(this.map, ram.offset, this.pageCount);
  }

  private get usesShadow(): boolean {
    return !this.patched || this.auditEvery > 0;
  }

  /** From here on, what is written counts as dirty; what has been written up to now does not. */
  restart(): void {
    this.fill(this.map, 0, this.pageCount, 0);
    this.fill(this.sinceAudit, 0, this.pageCount, 0);
    if (this.usesShadow) this.kernels.copy(this.shadow, this.ram.offset, this.ram.bytes);
    if (this.patched) this.exports.full_clear_tlb();
    this.capturesToAudit = this.auditEvery;
  }

  /** Lists the pages to capture. Forgets nothing: without a `take`, the next finds them again. */
  collect(also: PageRange | null): DirtySet {
    const { kernels, list, pageCount } = this;
    if (!this.patched) this.compareInto(this.map);
    let dirtyCount = kernels.scan(this.map, pageCount, list);
    let missedCount: number | null = null;
    if (this.auditEvery > 0) {
      kernels.mark(list, dirtyCount, this.sinceAudit);
      if (this.capturesToAudit <= 1) missedCount = this.audit();
      if (missedCount !== null) dirtyCount = kernels.scan(this.map, pageCount, list);
    }
    this.listed = dirtyCount;
    if (also !== null) {
      this.bytes().copyWithin(this.taken, this.map, this.map + pageCount);
      this.fill(this.taken, also.from, also.count, 1);
      this.listed = kernels.scan(this.taken, pageCount, list);
    }
    return { dirtyCount, pageCount: this.listed, missedCount };
  }

  /** Copies what `collect` listed, and starts anew. */
  take(pageIndices: Uint32Array, pageBytes: Uint8Array): void {
    const { list, listed, staging, ram } = this;
    for (let from = 0; from < listed; from += BATCH_PAGES) {
      const count = Math.min(BATCH_PAGES, listed - from);
      this.kernels.gather(ram.offset, list + from * 4, count, staging);
      const gathered = new Uint8Array(this.exports.memory.buffer, staging, count * PAGE_BYTES);
      pageBytes.set(gathered, from * PAGE_BYTES);
    }
    pageIndices.set(new Uint32Array(this.exports.memory.buffer, list, listed));
    this.settle();
  }

  private settle(): void {
    if (!this.patched) this.kernels.refresh(this.ram.offset, this.shadow, this.list, this.listed);
    this.capturesToAudit -= 1;
    if (this.capturesToAudit <= 0) {
      this.capturesToAudit = this.auditEvery;
      this.fill(this.sinceAudit, 0, this.pageCount, 0);
    }
    this.fill(this.map, 0, this.pageCount, 0);
    // The first write to a page must walk the page tables again to be seen.
    if (this.patched) this.exports.full_clear_tlb();
  }

  /**
   * Compares all of RAM with what it was at the last audit: a page that differs must have been
   * marked since. Marks those that were not and returns how many they are.
   */
  private audit(): number {
    const { map, sinceAudit, pageCount } = this;
    this.fill(this.taken, 0, pageCount, 0);
    this.compareInto(this.taken);
    const bytes = this.bytes();
    let missedCount = 0;
    for (let page = 0; page < pageCount; page += 1) {
      if (bytes[this.taken + page] === 0 || bytes[sinceAudit + page] !== 0) continue;
      bytes[map + page] = 1;
      missedCount += 1;
    }
    const differing = this.kernels.scan(this.taken, pageCount, this.list);
    this.kernels.refresh(this.ram.offset, this.shadow, this.list, differing);
    return missedCount;
  }

  private compareInto(map: number): void {
    this.kernels.compare(this.ram.offset, this.shadow, this.pageCount, map);
  }

  /** Views detach when the memory grows: never kept. */
  private bytes(): Uint8Array {
    return new Uint8Array(this.exports.memory.buffer);
  }

  private fill(map: number, from: number, count: number, value: 0 | 1): void {
    this.bytes().fill(value, map + from, map + from + count);
  }

  /** Page-aligned and zeroed. */
  private allocate(bytes: number): number {
    const room = bytes + PAGE_BYTES + SHADOW_SKEW_BYTES;
    const raw = this.exports.v86_malloc(room) >>> 0;
    if (raw === 0) throw new Error(`v86 has no ${room} bytes left for tracking`);
    const at = Math.ceil(raw / PAGE_BYTES) * PAGE_BYTES;
    this.bytes().fill(0, at, at + bytes + SHADOW_SKEW_BYTES);
    return at;
  }
}
