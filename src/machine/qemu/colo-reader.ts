/**
 * The other end of a COLO primary, as far as it is of use here: of the pages that QEMU sends only
 * their numbers, for their bytes are in the shared RAM, and the device states. Reads its socket by
 * blocking, in the capture worker. All integers are big-endian. Source: QEMU's migration/colo.c,
 * migration/ram.c and docs/COLO-FT.txt, 7.2.
 */
import { nonBlockingRead, waitReadable } from './libc.js';
import { QemuError } from './qemu-error.js';

export const ColoMessage = {
  ready: 0,
  request: 1,
  reply: 2,
  send: 3,
  size: 4,
  received: 5,
  loaded: 6,
} as const;

/** Messages as QEMU reads them. */
export function coloMessages(...messages: number[]): Buffer {
  const bytes = Buffer.alloc(4 * messages.length);
  messages.forEach((message, index) => bytes.writeUInt32BE(message, 4 * index));
  return bytes;
}

const MAGIC = 0x5145564d;
const Section = { eof: 0, start: 1, part: 2, end: 3, full: 4, subsection: 5 } as const;
const More = { description: 6, configuration: 7, command: 8, footer: 0x7e } as const;
const Flag = { zero: 2, sizes: 4, page: 8, endOfSection: 0x10, sameBlock: 0x20, xbzrle: 0x40 };
const FLAGS = 0xfff;
const PAGE_BYTES = 4096;
const BUFFER_BYTES = 1 << 20;
/** Of the devices, whose end nothing but a search finds. */
const DEVICES_BYTES_MAX = 64 << 20;
/** How the JSON begins. */
const DESCRIPTION = '{"page_size"';
const TWO_32 = 2 ** 32;

export interface ColoFigures {
  /** Bytes read since the socket was opened. */
  bytes: number;
  readonly records: { full: number; zero: number; xbzrle: number };
}

export class ColoReader {
  readonly figures: ColoFigures = { bytes: 0, records: { full: 0, zero: 0, xbzrle: 0 } };
  private readonly fd: number;
  private readonly msMax: number;
  /** Of the VM's own memory; the other blocks are ROMs and the like. */
  private readonly ramName: string;
  private buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  private at = 0;
  private end = 0;
  private inRam = false;

  /** `msMax`: how long QEMU may be silent in the middle of something. */
  constructor(fd: number, options: { readonly ramName: string; readonly msMax: number }) {
    this.fd = fd;
    this.ramName = options.ramName;
    this.msMax = options.msMax;
  }

  /** All of memory and the devices, up to where QEMU waits for READY. Pages count as read. */
  readInitial(): void {
    if (this.u32() !== MAGIC) throw new QemuError('QEMU_STREAM', 'QEMU sent no migration stream');
    this.u32();
    for (;;) {
      const section = this.u8();
      if (section === Section.full) break;
      else if (section === More.configuration) this.skip(this.u32());
      else if (section === Section.subsection) this.skipSubsection();
      else if (section === More.command) {
        this.u16();
        this.skip(this.u16());
      } else if (section === Section.start) {
        this.u32();
        this.skip(this.u8());
        this.skip(8);
        this.records(null);
      } else if (section === Section.part || section === Section.end) {
        this.u32();
        this.records(null);
      } else throw new QemuError('QEMU_STREAM', `a section of type ${section}`);
    }
    this.skipDevices();
  }

  /**
   * One checkpoint, from REQUEST to its device state, which is returned in the layout of
   * `xen-save-devices-state` less its header. `onStopped` is called once the VM stands still;
   * `marks` get a 1 for each page that was dirty.
   */
  readCheckpoint(marks: Uint8Array, onStopped: () => void): Uint8Array {
    this.expect(ColoMessage.request);
    this.expect(ColoMessage.send);
    onStopped();
    for (let section = this.u8(); section !== Section.eof; section = this.u8()) {
      if (section !== Section.part && section !== Section.end)
        throw new QemuError('QEMU_STREAM', `a section of type ${section} in a checkpoint`);
      this.u32();
      this.records(marks);
    }
    this.expect(ColoMessage.size);
    const bytes = this.u64();
    if (bytes > DEVICES_BYTES_MAX)
      throw new QemuError('QEMU_STREAM', `a device state of ${bytes} bytes`);
    this.need(bytes);
    this.at += bytes;
    return new Uint8Array(this.buffer.subarray(this.at - bytes, this.at));
  }

  /** Page records up to the end of their section. */
  private records(marks: Uint8Array | null): void {
    const { records } = this.figures;
    for (;;) {
      this.need(8);
      const low = this.buffer.readUInt32BE(this.at + 4);
      const flags = low & FLAGS;
      const offset = this.buffer.readUInt32BE(this.at) * TWO_32 + (low - flags);
      this.at += 8;
      if (flags & Flag.endOfSection) break;
      if (flags & Flag.sizes) {
        this.skipBlocks(offset);
        continue;
      }
      if (!(flags & Flag.sameBlock)) this.inRam = this.name() === this.ramName;
      if (flags & Flag.page) {
        records.full += 1;
        this.skip(PAGE_BYTES);
      } else if (flags & Flag.xbzrle) {
        records.xbzrle += 1;
        this.u8();
        this.skip(this.u16());
      } else if (flags & Flag.zero) {
        records.zero += 1;
        this.u8();
      } else throw new QemuError('QEMU_STREAM', `a RAM record with flags ${flags.toString(16)}`);
      if (this.inRam && marks) this.mark(marks, offset / PAGE_BYTES);
    }
    if (this.u8() !== More.footer) throw new QemuError('QEMU_STREAM', 'no section footer');
    this.u32();
  }

  private mark(marks: Uint8Array, page: number): void {
    if (page >= marks.length) throw new QemuError('QEMU_STREAM', `page ${page} is beyond memory`);
    marks[page] = 1;
  }

  /** Name, length and guest address of each block. */
  private skipBlocks(totalBytes: number): void {
    for (let bytes = 0; bytes < totalBytes;) {
      this.name();
      bytes += this.u64();
    }
  }

  private skipSubsection(): void {
    const name = this.name();
    this.u32();
    if (name === 'configuration/capabilities')
      for (let count = this.u32(); count > 0; count -= 1) this.name();
    else if (name === 'configuration/target-page-bits') this.skip(4);
    else if (name === 'configuration/uuid') this.skip(16);
    else throw new QemuError('QEMU_STREAM', `an unknown subsection ${name}`);
  }

  /** They have no length: their description, which is JSON, follows and has one. */
  private skipDevices(): void {
    for (let searched = 0; ;) {
      const held = this.buffer.subarray(this.at, this.end);
      const found = held.indexOf(DESCRIPTION, searched);
      if (found >= 0) {
        const length = held.readUInt32BE(found - 4);
        this.skip(found + length);
        return;
      }
      if (held.length > DEVICES_BYTES_MAX)
        throw new QemuError('QEMU_STREAM', 'the device states do not end');
      searched = Math.max(0, held.length - DESCRIPTION.length);
      this.need(held.length + 1);
    }
  }

  private expect(message: number): void {
    const got = this.u32();
    if (got !== message)
      throw new QemuError('QEMU_STREAM', `COLO message ${got} where ${message} was due`);
  }

  private name(): string {
    const bytes = this.u8();
    this.need(bytes);
    this.at += bytes;
    return this.buffer.toString('latin1', this.at - bytes, this.at);
  }

  private u8(): number {
    this.need(1);
    this.at += 1;
    return this.buffer[this.at - 1];
  }

  private u16(): number {
    this.need(2);
    this.at += 2;
    return this.buffer.readUInt16BE(this.at - 2);
  }

  private u32(): number {
    this.need(4);
    this.at += 4;
    return this.buffer.readUInt32BE(this.at - 4);
  }

  private u64(): number {
    return this.u32() * TWO_32 + this.u32();
  }

  private skip(bytes: number): void {
    this.need(bytes);
    this.at += bytes;
  }

  /** `bytes` bytes from `at` on are in the buffer. */
  private need(bytes: number): void {
    if (this.end - this.at >= bytes) return;
    if (this.at > 0) {
      this.buffer.copy(this.buffer, 0, this.at, this.end);
      this.end -= this.at;
      this.at = 0;
    }
    if (bytes > this.buffer.length) {
      const larger = Buffer.allocUnsafeSlow(Math.ceil(bytes / BUFFER_BYTES) * BUFFER_BYTES);
      this.buffer.copy(larger, 0, 0, this.end);
      this.buffer = larger;
    }
    while (this.end < bytes) this.fill();
  }

  private fill(): void {
    const got = nonBlockingRead(this.fd, this.buffer.subarray(this.end));
    if (got === 0) throw new QemuError('QEMU_STREAM', 'QEMU closed its migration stream');
    if (got > 0) {
      this.end += got;
      this.figures.bytes += got;
    } else if (!waitReadable(this.fd, this.msMax))
      throw new QemuError('QEMU_STREAM', `QEMU sent nothing for ${this.msMax} ms`);
  }
}
