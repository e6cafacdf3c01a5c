/** Sizes of memory and of disks in files and options: `64MiB`, and back to text for messages. */
import * as v from 'valibot';

export const MIB = 1 << 20;

const UNITS: Record<string, number> = { KiB: 1024, MiB: MIB, GiB: 1 << 30 };
const SIZE = /^(\d{1,7})(KiB|MiB|GiB)$/;

export const NOT_A_SIZE = 'is not a size such as 64MiB';

/** `null` for what is no size. */
export function parseSize(text: string): number | null {
  const match = SIZE.exec(text);
  return match ? Number(match[1]) * UNITS[match[2]] : null;
}

/** In a file, as bytes. */
export const size = v.pipe(
  v.string(NOT_A_SIZE),
  v.regex(SIZE, NOT_A_SIZE),
  v.transform((text) => parseSize(text) ?? 0),
);

export const mib = (bytes: number): string => `${Math.round(bytes / MIB)} MiB`;
