/**
 * What a 64-bit ELF program needs to run: its interpreter and its shared libraries, by name (System
 * V ABI, chapter 5: `PT_INTERP`, and `DT_NEEDED` of the dynamic section).
 */

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const PT_INTERP = 3;
const DT_NEEDED = 1n;
const DT_STRTAB = 5n;

export interface ElfNeeds {
  /** Absolute path; empty: none. */
  readonly interpreter: string;
  readonly libraries: readonly string[];
}

interface Segment {
  readonly type: number;
  readonly offset: number;
  readonly address: bigint;
  readonly bytes: number;
}

function segmentsOf(elf: Buffer): Segment[] {
  const at = Number(elf.readBigUInt64LE(32));
  const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
  return Array.from({ length: count }, (_, index) => {
    const header = at + index * size;
    return {
      type: elf.readUInt32LE(header),
      offset: Number(elf.readBigUInt64LE(header + 8)),
      address: elf.readBigUInt64LE(header + 16),
      bytes: Number(elf.readBigUInt64LE(header + 32)),
    };
  });
}

const textAt = (elf: Buffer, at: number): string => elf.toString('latin1', at, elf.indexOf(0, at));

/** `null`: not a 64-bit ELF. */
export function elfNeeds(elf: Buffer): ElfNeeds | null {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2) return null;
  const segments = segmentsOf(elf);
  const interp = segments.find(({ type }) => type === PT_INTERP);
  const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
  const needed: number[] = [];
  let strings = 0n;
  const { offset: start, bytes } = dynamic ?? { offset: 0, bytes: 0 };
  for (let at = start; at < start + bytes; at += 16) {
    const tag = elf.readBigUInt64LE(at);
    const value = elf.readBigUInt64LE(at + 8);
    if (tag === DT_NEEDED) needed.push(Number(value));
    else if (tag === DT_STRTAB) strings = value;
  }
  const home = segments.find(
    ({ type, address, bytes }) =>
      type === PT_LOAD && address <= strings && strings < address + BigInt(bytes),
  );
  const table = home ? home.offset + Number(strings - home.address) : 0;
  return {
    interpreter: interp ? textAt(elf, interp.offset) : '',
    libraries: needed.map((offset) => textAt(elf, table + offset)),
  };
}
