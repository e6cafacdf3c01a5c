/**
 * The sweep of a sync: which pages a new secondary has not been sent yet. Pages are sent in ranges
 * beside the dirty ones while the VM runs; the last range, taken with the gate closed, completes
 * the image.
 */
import type { PageRange } from '../machine/machine.js';

/** 8 MiB a sync epoch: about 1 ms of copying on top of the dirty pages. */
const PAGES_PER_EPOCH = 2_048;

export class Sweep {
  private readonly pageCount: number;
  /** All pages below have been captured since the sync began. */
  private next_: number;

  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.next_ = pageCount;
  }

  restart(): void {
    this.next_ = 0;
  }

  get complete(): boolean {
    return this.next_ >= this.pageCount;
  }

  get restFitsOneEpoch(): boolean {
    return this.pageCount - this.next_ <= PAGES_PER_EPOCH;
  }

  /** The range to capture with the next epoch; everything that is left if it is the final one. */
  next(final: boolean): PageRange | null {
    const rest = this.pageCount - this.next_;
    if (rest === 0) return null;
    const count = final ? rest : Math.min(rest, PAGES_PER_EPOCH);
    return { from: this.next_, count };
  }

  /** Call once the range has really been captured. */
  advance(range: PageRange | null): void {
    if (range === null) return;
    if (range.from !== this.next_) throw new Error('sweep advanced out of order');
    this.next_ = range.from + range.count;
  }
}
