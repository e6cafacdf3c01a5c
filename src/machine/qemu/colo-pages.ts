/**
 * Pages as a COLO primary sends them, put together in a copy of RAM that only they are written to:
 * what a checkpoint holds stays as it was though the VM goes on. Of the copy, pages that never came
 * take no room.
 */
import { PAGE_BYTES } from '../machine.js';
import { QemuError } from './qemu-error.js';

const XBZRLE = 1;
const ZEROS = Buffer.alloc(PAGE_BYTES);

/** A page: did not come yet; came once, in the initial migration; is held as it came last. */
const State = { none: 0, seen: 1, held: 2 } as const;

/**
 * QEMU sends changes against what it sent last, but for the first round of its initial migration:
 * of that it keeps nothing, so neither is it kept here. Pages of its later rounds are: those
 * that were written while the VM ran.
 */
export class ColoPages {
  private readonly copy: Buffer;
  private readonly marks: Uint8Array;
  private readonly states: Uint8Array;
  private initial = false;

  /** `marks` has a byte for each page, set to 1 for those that came in a checkpoint. */
  constructor(copy: Buffer, marks: Uint8Array) {
    this.copy = copy;
    this.marks = marks;
    this.states = new Uint8Array(copy.length / PAGE_BYTES);
  }

  beginInitial(): void {
    this.initial = true;
    this.states.fill(State.none);
  }

  endInitial(): void {
    this.initial = false;
  }

  /** The copy has its bytes as of the last checkpoint. */
  holds(page: number): boolean {
    return this.states[page] === State.held;
  }

  full(page: number, from: Buffer, at: number): void {
    if (!this.takes(page)) return;
    from.copy(this.copy, page * PAGE_BYTES, at, at + PAGE_BYTES);
  }

  filled(page: number, byte: number): void {
    if (!this.takes(page)) return;
    const start = page * PAGE_BYTES;
    const end = start + PAGE_BYTES;
    // To read a page that never came takes no room, to write it does.
    if (byte === 0 && ZEROS.compare(this.copy, start, end) === 0) return;
    this.copy.fill(byte, start, end);
  }

  /**
   * What changed in a page that came before: unchanged bytes are counted, changed ones counted and
   * given, in turns; each count is a LEB128. Source: QEMU's docs/xbzrle.txt and migration/xbzrle.c.
   */
  changed(page: number, encoding: number, from: Buffer, at: number, bytes: number): void {
    if (encoding !== XBZRLE) throw new QemuError('QEMU_STREAM', `page encoding ${encoding}`);
    if (!this.holds(page))
      throw new QemuError('QEMU_STREAM', `changes of page ${page}, which never came whole`);
    this.takes(page);
    const { copy } = this;
    const start = page * PAGE_BYTES;
    const end = at + bytes;
    let to = 0;
    for (let next = at; next < end;) {
      let same = from[next++];
      if (same & 0x80) same = (same & 0x7f) | (from[next++] << 7);
      let given = next < end ? from[next++] : 0;
      if (given & 0x80) given = (given & 0x7f) | (from[next++] << 7);
      to += same;
      if (to + given > PAGE_BYTES || next + given > end)
        throw new QemuError('QEMU_STREAM', `the changes of page ${page} do not fit it`);
      for (let i = 0; i < given; i += 1) copy[start + to + i] = from[next + i];
      to += given;
      next += given;
    }
  }

  private takes(page: number): boolean {
    if (page >= this.states.length)
      throw new QemuError('QEMU_STREAM', `page ${page} is beyond memory`);
    if (this.initial && this.states[page] === State.none) {
      this.states[page] = State.seen;
      return false;
    }
    this.states[page] = State.held;
    if (!this.initial) this.marks[page] = 1;
    return true;
  }
}
