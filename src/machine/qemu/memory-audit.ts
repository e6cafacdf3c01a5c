/**
 * Looks through all of memory for pages that changed and that COLO did not tell: held pages must be
 * as they came, all others as at the last audit.
 */
import createXxhash from 'xxhash-wasm';
import { PAGE_BYTES } from '../machine.js';
import type { ColoPages } from './colo-pages.js';
import type { Extent } from './ram-file.js';

export class MemoryAudit {
  private readonly hash: (page: Uint8Array) => number;
  private hashes: Uint32Array | null = null;
  private readonly zeroHash: number;

  static async create(): Promise<MemoryAudit> {
    const { h32Raw } = await createXxhash();
    return new MemoryAudit((page) => h32Raw(page));
  }

  private constructor(hash: (page: Uint8Array) => number) {
    this.hash = hash;
    this.zeroHash = hash(new Uint8Array(PAGE_BYTES));
  }

  /** Marks what was missed in `marks`, and returns how many pages that are. */
  look(
    { ram, copy, pages }: { ram: Buffer; copy: Buffer; pages: ColoPages },
    written: readonly Extent[],
    marks: Uint8Array,
  ): number {
    const before = this.hashes;
    const hashes = before ?? new Uint32Array(ram.length / PAGE_BYTES).fill(this.zeroHash);
    this.hashes = hashes;
    let missed = 0;
    for (const { from, to } of written)
      for (let page = from; page < to; page += 1) {
        const [start, end] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
        const hash = this.hash(ram.subarray(start, end));
        const good = pages.holds(page)
          ? ram.compare(copy, start, end, start, end) === 0
          : before === null || hashes[page] === hash;
        hashes[page] = hash;
        if (good) continue;
        marks[page] = 1;
        missed += 1;
      }
    return missed;
  }
}
