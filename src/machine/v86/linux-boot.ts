/**
 * Starts a Linux bzImage without a BIOS, by the 32-bit boot protocol
 * (https://docs.kernel.org/arch/x86/boot.html), and sets up in the chipset what a BIOS would have.
 */
import { MirrorError } from '../../core/errors.js';
import type { V86Cpu, V86Pci } from './internals.js';

const ZERO_PAGE_AT = 0x90000;
const CMDLINE_AT = 0x99000;
const CMDLINE_BYTES_MAX = 2047;
const KERNEL_AT = 0x100000;
const PAGE_MASK = 0xfff;
/** Kept free above the initrd. */
const TOP_BYTES = 0x100000;
const HEADER_AT = 0x1f1;
const HEADER_MAGIC_AT = 0x202;
const HEADER_MAGIC = 0x53726448;
const SECTOR_BYTES = 512;
/** IRQs of PCI pins A to D; the bits of ELCR 0x4D1 that make 10 and 11 level-triggered. */
const PIRQ_ROUTES = [10, 11, 10, 11];
const ELCR2_PORT = 0x4d1;
const ELCR2_LEVEL = 0x0c;

export function isBzImage(kernel: Uint8Array): boolean {
  if (kernel.length < HEADER_MAGIC_AT + 0x40) return false;
  const view = new DataView(kernel.buffer, kernel.byteOffset, kernel.byteLength);
  return view.getUint32(HEADER_MAGIC_AT, true) === HEADER_MAGIC;
}

export class LinuxBootError extends MirrorError {
  constructor(message: string) {
    super('linux-boot', message);
  }
}

interface LinuxImage {
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array | null;
  readonly cmdline: string;
}

function writeImages(ram: Uint8Array, image: LinuxImage): { initrdAt: number } {
  const { kernel, initrd, cmdline } = image;
  const setupBytes = ((kernel[HEADER_AT] || 4) + 1) * SECTOR_BYTES;
  const text = Buffer.from(`${cmdline}\0`);
  if (text.length > CMDLINE_BYTES_MAX) throw new LinuxBootError('the command line is too long');
  const initrdBytes = initrd?.length ?? 0;
  const initrdAt = (ram.length - initrdBytes - TOP_BYTES) & ~PAGE_MASK;
  const kernelEnd = KERNEL_AT + 4 * (kernel.length - setupBytes);
  if (initrdAt < kernelEnd) throw new LinuxBootError('kernel and initrd need more memory');
  ram.set(kernel.subarray(setupBytes), KERNEL_AT);
  if (initrd) ram.set(initrd, initrdAt);
  ram.set(text, CMDLINE_AT);
  return { initrdAt };
}

/** The "zero page": the kernel's setup header, what the loader has to say, the memory map. */
function writeZeroPage(ram: Uint8Array, image: LinuxImage, initrdAt: number): void {
  const { kernel, initrd } = image;
  const headerEnd = 0x202 + kernel[0x201];
  ram.fill(0, ZERO_PAGE_AT, ZERO_PAGE_AT + 4096);
  ram.set(kernel.subarray(HEADER_AT, headerEnd), ZERO_PAGE_AT + HEADER_AT);
  const page = new DataView(ram.buffer, ram.byteOffset + ZERO_PAGE_AT, 4096);
  page.setUint16(0x1fa, 0xffff, true); // vid_mode: normal
  page.setUint8(0x210, 0xff); // type_of_loader: undefined
  page.setUint8(0x211, page.getUint8(0x211) | 0x81); // LOADED_HIGH, CAN_USE_HEAP
  page.setUint32(0x214, KERNEL_AT, true); // code32_start
  page.setUint32(0x218, initrd ? initrdAt : 0, true);
  page.setUint32(0x21c, initrd?.length ?? 0, true);
  page.setUint16(0x224, 0x8e00, true); // heap_end_ptr
  page.setUint32(0x228, CMDLINE_AT, true);
  const USABLE = 1;
  const RESERVED = 2;
  const regions = [
    [0, 0x9fc00, USABLE],
    [0x9fc00, 0x400, RESERVED],
    [0xf0000, 0x10000, RESERVED],
    [KERNEL_AT, ram.length - KERNEL_AT, USABLE],
  ];
  page.setUint8(0x1e8, regions.length);
  regions.forEach(([start, bytes, type], i) => {
    const at = 0x2d0 + 20 * i;
    page.setBigUint64(at, BigInt(start), true);
    page.setBigUint64(at + 8, BigInt(bytes), true);
    page.setUint32(at + 16, type, true);
  });
}

/** Interrupt routing of PCI devices, and the PIIX bits without which Linux sees no IDE ports. */
function setUpChipset(cpu: V86Cpu): void {
  const pci: V86Pci = cpu.devices.pci;
  PIRQ_ROUTES.forEach((irq, i) => {
    pci.isa_bridge_space8[0x60 + i] = irq;
  });
  cpu.io.port_write8(ELCR2_PORT, ELCR2_LEVEL);
  pci.device_spaces.forEach((space, id) => {
    if (!space) return;
    const pin = (space[15] >> 8) & 0xff;
    if (pin === 0) return;
    const slot = (id >> 3) - 1;
    const irq = PIRQ_ROUTES[(pin - 1 + (slot & 0xff)) & 3];
    space[15] = (space[15] & ~0xff) | irq;
  });
  const ide = pci.device_spaces.find((space) => space && space[2] >>> 16 === 0x0101);
  if (ide) ide[0x40 >> 2] |= 0x80008000 | 0;
}

/** 32-bit protected mode with flat segments, paging off, interrupts off, ESI at the zero page. */
function enterProtectedMode(cpu: V86Cpu): void {
  const ESI = 6;
  const CS = 1;
  cpu.reg32[ESI] = ZERO_PAGE_AT;
  cpu.cr[0] = 1;
  cpu.protected_mode[0] = 1;
  cpu.flags[0] = 2;
  cpu.is_32[0] = 1;
  cpu.stack_size_32[0] = 1;
  for (let segment = 0; segment < 6; segment += 1) {
    cpu.segment_is_null[segment] = 0;
    cpu.segment_offsets[segment] = 0;
    cpu.segment_limits[segment] = 0xffffffff;
    cpu.sreg[segment] = segment === CS ? 0x10 : 0x18;
  }
  cpu.instruction_pointer[0] = KERNEL_AT;
  cpu.update_state_flags();
}

export function bootLinux(cpu: V86Cpu, ram: Uint8Array, image: LinuxImage): void {
  const { initrdAt } = writeImages(ram, image);
  writeZeroPage(ram, image, initrdAt);
  setUpChipset(cpu);
  enterProtectedMode(cpu);
}
