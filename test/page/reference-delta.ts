/**
 * What the page kernels are compared with. One page against its previous version: runs of new
 * bytes, in words of 4 bytes. A run is two bytes, words to skip and words to follow, below 256;
 * longer ones are split.
 */

export const PAGE_BYTES = 4096;
const WORDS = PAGE_BYTES / 4;
/** Past this a delta saves too little: the page goes whole. */
const DELTA_BYTES_MAX = 1_536;

export const Kind = { zero: 0, delta: 1, whole: 2 } as const;

export interface DeltaPage {
  readonly kind: number;
  readonly bytes: number;
}

/**
 * Writes the page at word `at` of `now` against the one at word `was` of `before`, to `out` from
 * `to`. `out` has room for a whole page.
 */
export function encodePage(
  now: Uint32Array,
  at: number,
  before: Uint32Array,
  was: number,
  out: Uint8Array,
  to: number,
): DeltaPage {
  let position = to;
  let word = 0;
  let nonZero = 0;
  let from = 0;
  while (word < WORDS) {
    while (word < WORDS && now[at + word] === before[was + word]) word += 1;
    if (word === WORDS) break;
    let skip = word - from;
    for (; skip > 255; skip -= 255) {
      out[position++] = 255;
      out[position++] = 0;
    }
    const countAt = position + 1;
    out[position] = skip;
    position += 2;
    let count = 0;
    while (word < WORDS && count < 255 && now[at + word] !== before[was + word]) {
      const value = now[at + word];
      nonZero |= value;
      out[position] = value;
      out[position + 1] = value >>> 8;
      out[position + 2] = value >>> 16;
      out[position + 3] = value >>> 24;
      position += 4;
      word += 1;
      count += 1;
    }
    out[countAt] = count;
    from = word;
    if (position - to > DELTA_BYTES_MAX) return wholePage(now, at, out, to, nonZero);
  }
  return { kind: Kind.delta, bytes: position - to };
}

function wholePage(
  now: Uint32Array,
  at: number,
  out: Uint8Array,
  to: number,
  nonZero: number,
): DeltaPage {
  if (nonZero === 0 && isZero(now, at)) return { kind: Kind.zero, bytes: 0 };
  out.set(new Uint8Array(now.buffer, now.byteOffset + at * 4, PAGE_BYTES), to);
  return { kind: Kind.whole, bytes: PAGE_BYTES };
}

function isZero(words: Uint32Array, at: number): boolean {
  for (let word = 0; word < WORDS; word += 1) if (words[at + word] !== 0) return false;
  return true;
}

/**
 * Applies a delta of `bytes` bytes at `from` of `delta` to the page at `at` of `page`, in place.
 * False if the delta does not fit a page.
 */
export function applyDelta(
  delta: Uint8Array,
  from: number,
  bytes: number,
  page: Uint8Array,
  at: number,
): boolean {
  const end = from + bytes;
  let position = from;
  let place = 0;
  while (position < end) {
    if (position + 2 > end) return false;
    place += delta[position] * 4;
    const count = delta[position + 1] * 4;
    position += 2;
    if (position + count > end || place + count > PAGE_BYTES) return false;
    page.set(delta.subarray(position, position + count), at + place);
    position += count;
    place += count;
  }
  return true;
}
