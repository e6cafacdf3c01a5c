/**
 * The other end of a COLO primary: takes the pages that were written and the device states out of
 * its stream. Reads its socket by blocking, in the capture worker. All integers are big-endian.
 * Source: QEMU's migration/colo.c, migration/ram.c and docs/COLO-FT.txt, 7.2.
 */
import { writeSync } from 'node:fs';
import type { ColoPages } from './colo-pages.js';
import { nonBlockingRead, ReadWaiter } from './libc.js';
import { QemuError } from './qemu-error.js';

const Message = {
  ready: 0,
  request: 1,
  reply: 2,
  send: 3,
  size: 4,
  received: 5,
  loaded: 6,
} as const;

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

/** Who is told of a checkpoint while it is read. */
export interface CheckpointListener {
  /** The VM stands still. */
  stopped(): void;
  /** A read of the socket is due. */
  reading(): void;
}

export class ColoStream {
  private readonly fd: number;
  private readonly waiter: ReadWaiter;
  private readonly msMax: number;
  /** Of the VM's own memory; the other blocks are ROMs and the like. */
  private readonly ramName: string;
  private buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  private at = 0;
  private end = 0;
  private inRam = false;
  private listener: CheckpointListener | null = null;
  private readonly pages: ColoPages;

  /** `msMax`: how long QEMU may be silent in the middle of something. */
  constructor(
    fd: number,
    pages: ColoPages,
    options: { readonly ramName: string; readonly msMax: number },
  ) {
    this.fd = fd;
    this.pages = pages;
    this.waiter = new ReadWaiter(fd);
    this.ramName = options.ramName;
    this.msMax = options.msMax;
  }

  /** All of memory and the devices, up to where QEMU waits for `begin`. */
  readInitial(): void {
    if (this.u32() !== MAGIC) throw new QemuError('QEMU_STREAM', 'QEMU sent no migration stream');
    this.u32();
    this.pages.beginInitial();
    for (let section = this.u8(); section !== Section.full; section = this.u8())
      this.skipSection(section);
    this.pages.endInitial();
    this.skipDevices();
  }

  /** The VM runs, and QEMU asks for the first checkpoint. */
  begin(): void {
    this.send(Message.ready);
  }

  /**
   * One checkpoint, from the VM's stop to its device state, which is returned in the layout of
   * `xen-save-devices-state` less its header. The VM stands still until `goOn`, which may come
   * while the checkpoint is read.
   */
  readCheckpoint(listener: CheckpointListener): Uint8Array {
    this.listener = listener;
    this.expect(Message.request);
    this.send(Message.reply);
    this.expect(Message.send);
    listener.stopped();
    for (let section = this.u8(); section !== Section.eof; section = this.u8()) {
      if (section !== Section.part && section !== Section.end)
        throw new QemuError('QEMU_STREAM', `a section of type ${section} in a checkpoint`);
      this.u32();
      this.records();
    }
    this.expect(Message.size);
    const bytes = this.u64();
    if (bytes > DEVICES_BYTES_MAX)
      throw new QemuError('QEMU_STREAM', `a device state of ${bytes} bytes`);
    this.need(bytes);
    this.at += bytes;
    this.listener = null;
    return new Uint8Array(this.buffer.subarray(this.at - bytes, this.at));
  }

  goOn(): void {
    this.send(Message.received, Message.loaded);
  }

  private send(...messages: number[]): void {
    const bytes = Buffer.alloc(4 * messages.length);
    messages.forEach((message, index) => bytes.writeUInt32BE(message, 4 * index));
    writeSync(this.fd, bytes);
  }

  private skipSection(section: number): void {
    if (section === More.configuration) this.skip(this.u32());
    else if (section === Section.subsection) this.skipSubsection();
    else if (section === More.command) {
      this.u16();
      this.skip(this.u16());
    } else if (section === Section.start) {
      this.u32();
      this.skip(this.u8());
      this.skip(8);
      this.records();
    } else if (section === Section.part || section === Section.end) {
      this.u32();
      this.records();
    } else throw new QemuError('QEMU_STREAM', `a section of type ${section}`);
  }

  /** Page records up to the end of their section. */
  private records(): void {
    for (;;) {
      this.need(8);
      const low = this.buffer.readUInt32BE(this.at + 4);
      const flags = low & FLAGS;
      const offset = this.buffer.readUInt32BE(this.at) * TWO_32 + (low - flags);
      this.at += 8;
      if (flags & Flag.endOfSection) break;
      if (flags & Flag.sizes) this.skipBlocks(offset);
      else {
        if (!(flags & Flag.sameBlock)) this.inRam = this.name() === this.ramName;
        this.record(flags, this.inRam ? offset / PAGE_BYTES : -1);
      }
    }
    if (this.u8() !== More.footer) throw new QemuError('QEMU_STREAM', 'no section footer');
    this.u32();
  }

  /** `page` is -1 outside of the VM's memory. */
  private record(flags: number, page: number): void {
    if (flags & Flag.page) {
      this.skip(PAGE_BYTES);
      if (page >= 0) this.pages.full(page, this.buffer, this.at - PAGE_BYTES);
    } else if (flags & Flag.xbzrle) {
      const encoding = this.u8();
      const bytes = this.u16();
      this.skip(bytes);
      if (page >= 0) this.pages.changed(page, encoding, this.buffer, this.at - bytes, bytes);
    } else if (flags & Flag.zero) {
      const byte = this.u8();
      if (page >= 0) this.pages.filled(page, byte);
    } else throw new QemuError('QEMU_STREAM', `a RAM record with flags ${flags.toString(16)}`);
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
    const room = this.buffer.subarray(this.end);
    this.listener?.reading();
    let got = nonBlockingRead(this.fd, room);
    if (got < 0) {
      if (!this.waiter.wait(this.msMax))
        throw new QemuError('QEMU_STREAM', `QEMU sent nothing for ${this.msMax} ms`);
      this.listener?.reading();
      got = nonBlockingRead(this.fd, room);
    }
    if (got === 0) throw new QemuError('QEMU_STREAM', 'QEMU closed its migration stream');
    if (got < 0) return;
    this.end += got;
  }
}
