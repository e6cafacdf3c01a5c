// Page kernels in AssemblyScript, over whole batches of 4 KiB pages in memory that the caller lays
// out. Nothing here allocates; every pointer is the caller's, and checked by the caller.

const PAGE_BYTES: usize = 4096;
/** Past this a delta saves too little: the page goes whole. */
const DELTA_BYTES_MAX: usize = 1536;
const RUN_WORDS_MAX: usize = 255;

const ZERO: u8 = 0;
const DELTA: u8 = 1;
const WHOLE: u8 = 2;

const PRIME_1: u64 = 0x9e3779b185ebca87;
const PRIME_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME_3: u64 = 0x165667b19e3779f9;
const PRIME_4: u64 = 0x85ebca77c2b2ae63;

/**
 * Encodes `count` pages at `now` against those that `indices` names in `shadow`, one after the
 * other into `out` (room for `count` whole pages and one more), and brings the shadow up to date.
 * Kinds go to `kinds` (u8), lengths to `lengths` (u16). Returns the bytes written to `out`.
 */
export function encodePages(
  now: usize,
  indices: usize,
  count: u32,
  shadow: usize,
  out: usize,
  kinds: usize,
  lengths: usize,
): u32 {
  let at = out;
  for (let i: u32 = 0; i < count; i++) {
    const page = now + <usize>i * PAGE_BYTES;
    const before = shadow + <usize>load<u32>(indices + <usize>i * 4) * PAGE_BYTES;
    const end = encodePage(page, before, at);
    const bytes = end - at;
    store<u8>(kinds + i, end < at ? ZERO : bytes > DELTA_BYTES_MAX ? WHOLE : DELTA);
    const length: usize = end < at ? 0 : bytes;
    store<u16>(lengths + <usize>i * 2, <u16>length);
    at += length;
    memory.copy(before, page, PAGE_BYTES);
  }
  return <u32>(at - out);
}

/** Returns the end of what was written; less than `out` says that the page is all zeros. */
function encodePage(now: usize, before: usize, out: usize): usize {
  let at = out;
  let word = nextDifference(now, before, 0);
  let from: usize = 0;
  let seen: u32 = 0;
  while (word < PAGE_BYTES) {
    let skip = (word - from) >> 2;
    for (; skip > RUN_WORDS_MAX; skip -= RUN_WORDS_MAX) {
      store<u8>(at, 255);
      store<u8>(at, 0, 1);
      at += 2;
    }
    const head = at;
    store<u8>(head, <u8>skip);
    at += 2;
    const end = min(PAGE_BYTES, word + RUN_WORDS_MAX * 4);
    while (word < end) {
      const value = load<u32>(now + word);
      if (value == load<u32>(before + word)) break;
      seen |= value;
      store<u32>(at, value);
      at += 4;
      word += 4;
    }
    store<u8>(head, <u8>((at - head - 2) >> 2), 1);
    from = word;
    if (at - out > DELTA_BYTES_MAX) {
      if (seen == 0 && isZero(now)) return out - 1;
      memory.copy(out, now, PAGE_BYTES);
      return out + PAGE_BYTES;
    }
    word = nextDifference(now, before, word);
  }
  return at;
}

/** Place of the first word from `word` on that differs; PAGE_BYTES if there is none. */
function nextDifference(now: usize, before: usize, word: usize): usize {
  while (word < PAGE_BYTES && (word & 63) != 0) {
    if (load<u32>(now + word) != load<u32>(before + word)) return word;
    word += 4;
  }
  while (word < PAGE_BYTES) {
    const a = now + word;
    const b = before + word;
    const differ = v128.or(
      v128.or(
        v128.xor(v128.load(a), v128.load(b)),
        v128.xor(v128.load(a, 16), v128.load(b, 16)),
      ),
      v128.or(
        v128.xor(v128.load(a, 32), v128.load(b, 32)),
        v128.xor(v128.load(a, 48), v128.load(b, 48)),
      ),
    );
    if (v128.any_true(differ)) break;
    word += 64;
  }
  while (word < PAGE_BYTES && load<u32>(now + word) == load<u32>(before + word)) word += 4;
  return word;
}

function isZero(page: usize): bool {
  for (let at: usize = 0; at < PAGE_BYTES; at += 64) {
    const any = v128.or(
      v128.or(v128.load(page + at), v128.load(page + at, 16)),
      v128.or(v128.load(page + at, 32), v128.load(page + at, 48)),
    );
    if (v128.any_true(any)) return false;
  }
  return true;
}

/**
 * Decodes `count` pages of a part: `kinds`, `lengths` and `body` as `encodePages` made them, onto
 * what the pages at `pages` held before. Returns `count`, or the first page whose delta does not
 * fit. Kinds and lengths are checked by the caller, and that they add up to the body.
 */
export function decodePages(
  body: usize,
  kinds: usize,
  lengths: usize,
  count: u32,
  pages: usize,
): u32 {
  let from = body;
  for (let i: u32 = 0; i < count; i++) {
    const kind = load<u8>(kinds + i);
    const bytes = <usize>load<u16>(lengths + <usize>i * 2);
    const page = pages + <usize>i * PAGE_BYTES;
    if (kind == WHOLE) memory.copy(page, from, PAGE_BYTES);
    else if (kind == ZERO) memory.fill(page, 0, PAGE_BYTES);
    else if (!applyDelta(from, bytes, page)) return i;
    from += bytes;
  }
  return count;
}

function applyDelta(from: usize, bytes: usize, page: usize): bool {
  const end = from + bytes;
  let place: usize = 0;
  while (from < end) {
    if (from + 2 > end) return false;
    place += <usize>load<u8>(from) * 4;
    const run = <usize>load<u8>(from, 1) * 4;
    from += 2;
    if (from + run > end || place + run > PAGE_BYTES) return false;
    memory.copy(page + place, from, run);
    from += run;
    place += run;
  }
  return true;
}

/** XXH64 of each of `count` pages, seeded with its index, to `leaves` (u64). */
export function hashPages(pages: usize, indices: usize, count: u32, leaves: usize): void {
  for (let i: u32 = 0; i < count; i++) {
    const seed = <u64>load<u32>(indices + <usize>i * 4);
    store<u64>(leaves + <usize>i * 8, hashPage(pages + <usize>i * PAGE_BYTES, seed));
  }
}

/** XXH64 for exactly one page: there is no rest shorter than a stripe. */
function hashPage(page: usize, seed: u64): u64 {
  let a = seed + PRIME_1 + PRIME_2;
  let b = seed + PRIME_2;
  let c = seed;
  let d = seed - PRIME_1;
  for (let at = page; at < page + PAGE_BYTES; at += 32) {
    a = round(a, load<u64>(at));
    b = round(b, load<u64>(at, 8));
    c = round(c, load<u64>(at, 16));
    d = round(d, load<u64>(at, 24));
  }
  let hash = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18);
  hash = merge(hash, a);
  hash = merge(hash, b);
  hash = merge(hash, c);
  hash = merge(hash, d);
  hash += <u64>PAGE_BYTES;
  hash = (hash ^ (hash >> 33)) * PRIME_2;
  hash = (hash ^ (hash >> 29)) * PRIME_3;
  return hash ^ (hash >> 32);
}

// @ts-ignore: a decorator of AssemblyScript
@inline
function round(lane: u64, input: u64): u64 {
  return rotl(lane + input * PRIME_2, 31) * PRIME_1;
}

// @ts-ignore: a decorator of AssemblyScript
@inline
function merge(hash: u64, lane: u64): u64 {
  return (hash ^ round(0, lane)) * PRIME_1 + PRIME_4;
}
