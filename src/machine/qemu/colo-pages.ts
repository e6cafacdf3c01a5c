/**
 * Pages as a COLO primary sends them, put together in a copy of RAM that only they are written to:
 * what a checkpoint holds stays as it was though the VM goes on. Of the copy, pages that never came
 * take no room.
 */
import { PAGE_BYTES } from '../machine.js';
import { QemuError } from './qemu-error.js';

const XBZRLE = 1;
const ZEROS = Buffer.alloc(PAGE_BYTES);

export class ColoPages {
  private readonly copy: Buffer;
  private readonly marks: Uint8Array;
  private readonly pageCount: number;

  /** `marks` has a byte for each page, set to 1 for those that came. */
  constructor(copy: Buffer, marks: Uint8Array) {
    this.copy = copy;
    this.marks = marks;
    this.pageCount = copy.length / PAGE_BYTES;
  }

  full(page: number, from: Buffer, at: number): void {
    from.copy(this.copy, this.startOf(page), at, at + PAGE_BYTES);
  }

  filled(page: number, byte: number): void {
    const start = this.startOf(page);
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
    const { copy } = this;
    const start = this.startOf(page);
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

  private startOf(page: number): number {
    if (page >= this.pageCount) throw new QemuError('QEMU_STREAM', `page ${page} is beyond memory`);
    this.marks[page] = 1;
    return page * PAGE_BYTES;
  }
}
