/** The page kernels against plain code: the same bytes, the same hashes, for all kinds of pages. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import createXxhash from 'xxhash-wasm';
import {
  KernelMemory,
  Kind,
  loadPageKernels,
  PAGE_BYTES,
  PAGES_PER_PART,
} from '../../src/page/page-kernels.js';
import { applyDelta, encodePage } from './reference-delta.js';

const kernels = suite('page kernels');
const module = await loadPageKernels();
const { h64Raw } = await createXxhash();

const INDICES = 0;
const KINDS = PAGE_BYTES;
const LENGTHS = 2 * PAGE_BYTES;
const LEAVES = 3 * PAGE_BYTES;
const NOW = 4 * PAGE_BYTES;
const SHADOW = NOW + PAGES_PER_PART * PAGE_BYTES;
const OUT = SHADOW + PAGES_PER_PART * PAGE_BYTES;
const DECODED = OUT + (PAGES_PER_PART + 1) * PAGE_BYTES;
const TOTAL = DECODED + PAGES_PER_PART * PAGE_BYTES;

type Page = 'same' | 'zero' | 'one byte' | 'sparse' | 'runs' | 'same byte' | 'random';

/** The pages before and after, one kind each. */
function make(kinds: readonly Page[], seed: number): { before: Uint8Array; now: Uint8Array } {
  let state = seed | 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const before = Uint8Array.from({ length: kinds.length * PAGE_BYTES }, () => next());
  const now = before.slice();
  kinds.forEach((kind, index) => {
    const page = now.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
    if (kind === 'zero') page.fill(0);
    else if (kind === 'same byte') page.fill(next());
    else if (kind === 'one byte') page[next() % PAGE_BYTES] ^= 1;
    else if (kind === 'random') page.forEach((_, at) => (page[at] = next()));
    else if (kind === 'sparse') for (let i = 0; i < 40; i += 1) page[next() % PAGE_BYTES] = next();
    else if (kind === 'runs') {
      const from = next() % PAGE_BYTES;
      page.fill(next(), from, from + (next() % 2_000));
    }
  });
  return { before, now };
}

function run(kinds: readonly Page[], seed: number): void {
  const { before, now } = make(kinds, seed);
  const count = kinds.length;
  const work = new KernelMemory(module, TOTAL);
  const bytes = new Uint8Array(work.memory.buffer);
  const indices = Uint32Array.from({ length: count }, (_, index) => index);
  new Uint32Array(bytes.buffer, INDICES, count).set(indices);
  bytes.set(now, NOW);
  bytes.set(before, SHADOW);
  const total = work.kernels.encodePages(NOW, INDICES, count, SHADOW, OUT, KINDS, LENGTHS);

  let at = 0;
  const whole = new Uint8Array(2 * PAGE_BYTES);
  for (let page = 0; page < count; page += 1) {
    const words = new Uint32Array(now.buffer);
    const were = new Uint32Array(before.buffer);
    const from = (page * PAGE_BYTES) / 4;
    const expected = encodePage(words, from, were, from, whole, 0);
    assert.is(bytes[KINDS + page], expected.kind, kinds[page]);
    const length = new Uint16Array(bytes.buffer, LENGTHS, count)[page];
    assert.is(length, expected.bytes, kinds[page]);
    assert.equal(bytes.slice(OUT + at, OUT + at + length), whole.slice(0, length));
    at += length;
  }
  assert.is(total, at);
  assert.equal(bytes.slice(SHADOW, SHADOW + now.length), now, 'the shadow is up to date');

  bytes.set(before, DECODED);
  assert.is(work.kernels.decodePages(OUT, KINDS, LENGTHS, count, DECODED), count);
  assert.equal(bytes.slice(DECODED, DECODED + now.length), now);

  work.kernels.hashPages(NOW, INDICES, count, LEAVES);
  const leaves = new BigUint64Array(bytes.buffer, LEAVES, count);
  for (let page = 0; page < count; page += 1) {
    const content = now.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    assert.is(leaves[page], h64Raw(content, BigInt(page)));
  }
}

const ALL: Page[] = ['same', 'zero', 'one byte', 'sparse', 'runs', 'same byte', 'random'];

kernels('no page, one of each, and a full part', () => {
  run([], 1);
  run(ALL, 2);
  run(
    Array.from({ length: PAGES_PER_PART }, (_, index) => ALL[index % ALL.length]),
    3,
  );
  run(Array<Page>(PAGES_PER_PART).fill('random'), 4);
});

kernels('any mixture encodes as by plain code, decodes to itself, hashes as by xxhash', () => {
  const mixture = fc.array(fc.constantFrom(...ALL), { maxLength: 12 });
  fc.assert(
    fc.property(mixture, fc.integer(), (kinds, seed) => run(kinds, seed)),
    { numRuns: 150 },
  );
});

kernels('any bytes as a delta: decoded as by plain code, or refused as by it', () => {
  const work = new KernelMemory(module, TOTAL);
  const bytes = new Uint8Array(work.memory.buffer);
  const delta = fc.uint8Array({ maxLength: 600 });
  fc.assert(
    fc.property(delta, (body) => {
      const expected = new Uint8Array(PAGE_BYTES).fill(7);
      const fits = applyDelta(body, 0, body.length, expected, 0);
      bytes.set(body, OUT);
      bytes[KINDS] = Kind.delta;
      new Uint16Array(bytes.buffer, LENGTHS, 1)[0] = body.length;
      bytes.fill(7, DECODED, DECODED + PAGE_BYTES);
      bytes.fill(9, DECODED + PAGE_BYTES, DECODED + 2 * PAGE_BYTES);
      const done = work.kernels.decodePages(OUT, KINDS, LENGTHS, 1, DECODED);
      assert.is(done === 1, fits);
      if (fits) assert.equal(bytes.slice(DECODED, DECODED + PAGE_BYTES), expected);
      const beyond = bytes.subarray(DECODED + PAGE_BYTES, DECODED + 2 * PAGE_BYTES);
      assert.ok(
        beyond.every((byte) => byte === 9),
        'nothing is written past the page',
      );
    }),
    { numRuns: 2_000 },
  );
});

kernels.run();
