/** The page codec: what goes in comes out, and what is damaged changes nothing. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DecodeError } from '../../src/page/part-codec.js';
import { fullRehash } from '../../src/page/full-rehash.js';
import { PageDecoder } from '../../src/page/page-decoder.js';
import { PageEncoder, type EncodedEpoch } from '../../src/page/page-encoder.js';
import { within } from '../within.js';

const PAGE = 4096;
const PAGES = 1_024;

type Pattern = 'sparse' | 'full' | 'random' | 'zero';

/** A small deterministic generator: a failing case can be run again. */
function prng(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

class Pair {
  readonly ram: { memory: WebAssembly.Memory; offset: number; bytes: number };
  readonly truth = new Uint8Array(PAGES * PAGE);
  device = new Uint8Array(10_000);
  epoch = 0;
  readonly encoder: PageEncoder;
  readonly decoder: PageDecoder;

  static async create(): Promise<Pair> {
    const memory = new WebAssembly.Memory({ initial: PAGES / 16 + 1 });
    const ram = { memory, offset: PAGE, bytes: PAGES * PAGE };
    return new Pair(ram, await PageEncoder.create(PAGES), await PageDecoder.create(ram));
  }

  private constructor(
    ram: { memory: WebAssembly.Memory; offset: number; bytes: number },
    encoder: PageEncoder,
    decoder: PageDecoder,
  ) {
    this.ram = ram;
    this.encoder = encoder;
    this.decoder = decoder;
  }

  image(): Uint8Array {
    return new Uint8Array(this.ram.memory.buffer, this.ram.offset, this.ram.bytes);
  }

  dirty(pages: number[], pattern: Pattern, random: () => number): EncodedEpoch {
    for (const page of pages) change(this.truth, page * PAGE, pattern, random);
    this.device[random() % this.device.length] = random();
    this.epoch += 1;
    const bytes = new Uint8Array(pages.length * PAGE);
    pages.forEach((page, i) =>
      bytes.set(this.truth.subarray(page * PAGE, (page + 1) * PAGE), i * PAGE),
    );
    return this.encoder.encode({
      generation: 3,
      epoch: this.epoch,
      pageIndices: Uint32Array.from(pages),
      pageBytes: bytes,
      pageCount: pages.length,
      deviceState: this.device,
    });
  }
}

function change(truth: Uint8Array, at: number, pattern: Pattern, random: () => number): void {
  const page = truth.subarray(at, at + PAGE);
  if (pattern === 'zero') page.fill(0);
  else if (pattern === 'sparse') page[random() % PAGE] = random();
  else if (pattern === 'full') page.fill(random());
  else for (let i = 0; i < PAGE; i += 1) page[i] = random();
}

function somePages(random: () => number, share: number): number[] {
  return Array.from({ length: PAGES }, (_, page) => page).filter(() => random() % 100 < share);
}

const codec = suite('page codec');

codec('an image follows its original over many epochs of every pattern', async () => {
  const random = prng(7);
  const pair = await within(5_000, 'pair', Pair.create());
  const patterns: Pattern[] = ['sparse', 'random', 'full', 'zero'];
  for (let round = 0; round < 24; round += 1) {
    const pattern = patterns[round % 4];
    const encoded = pair.dirty(somePages(random, [3, 40, 100][round % 3]), pattern, random);
    for (const part of encoded.parts) pair.decoder.stage(part);
    assert.ok(pair.decoder.verify(3, pair.epoch), `epoch ${pair.epoch} verifies`);
    pair.decoder.commit();
    assert.ok(Buffer.from(pair.image()).equals(Buffer.from(pair.truth)), `image ${pair.epoch}`);
    assert.ok(Buffer.from(pair.decoder.deviceState).equals(Buffer.from(pair.device)), 'device');
    assert.is(pair.decoder.memoryRoot, encoded.memoryRoot);
  }
  assert.is(await fullRehash(pair.ram), pair.decoder.memoryRoot);
});

codec('random pages cost at most 101 %, sparse ones at most 10 %', async () => {
  const random = prng(11);
  const pair = await within(5_000, 'pair', Pair.create());
  const all = Array.from({ length: PAGES }, (_, page) => page);
  const first = pair.dirty(all, 'random', random);
  assert.ok(first.wireBytes <= first.dirtyBytes * 1.01, `random ${first.wireBytes}`);
  const sparse = pair.dirty(all, 'sparse', random);
  assert.ok(sparse.wireBytes <= sparse.dirtyBytes * 0.1, `sparse ${sparse.wireBytes}`);
});

codec(
  'another generation, another number, a missing part: not verified, nothing changed',
  async () => {
    const random = prng(13);
    const pair = await within(5_000, 'pair', Pair.create());
    const root = pair.decoder.memoryRoot;
    const { parts } = pair.dirty(somePages(random, 80), 'random', random);
    const attempts: [number, number, Uint8Array[]][] = [
      [4, 1, parts],
      [3, 2, parts],
      [3, 1, parts.slice(0, -1)],
      [3, 1, parts.slice(1)],
    ];
    for (const [generation, epoch, some] of attempts) {
      for (const part of some) pair.decoder.stage(part);
      assert.not(pair.decoder.verify(generation, epoch));
      pair.decoder.dropStaged();
      assert.is(pair.decoder.memoryRoot, root);
      assert.ok(
        pair.image().every((byte) => byte === 0),
        'image untouched',
      );
    }
    for (const part of parts) pair.decoder.stage(part);
    assert.ok(pair.decoder.verify(3, 1));
  },
);

codec('a part that claims 4 GB is refused at once', async () => {
  const pair = await within(5_000, 'pair', Pair.create());
  const { Packr } = await import('msgpackr');
  const lying = new Packr({ useRecords: false }).pack([
    ...[1, 4096, Buffer.from([1, 0, 0, 0]), Buffer.from([2]), Buffer.from([0, 16])],
    ...[Buffer.from([0xff, 0xff, 0xff, 0xff, 0]), null],
  ]);
  const startedAt = Date.now();
  assert.throws(() => pair.decoder.stage(lying), /claims 4294967295 bytes/);
  assert.ok(Date.now() - startedAt < 1_000, 'no work was done for it');
});

codec('mutated parts throw DecodeError, fail to verify, or decode to the same', async () => {
  const random = prng(17);
  const pair = await within(5_000, 'pair', Pair.create());
  const { parts } = pair.dirty(somePages(random, 10), 'sparse', random);
  const [part] = parts;
  const mutation = fc.record({
    at: fc.nat(part.length - 1),
    byte: fc.integer({ min: 0, max: 255 }),
  });
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
      const bad = part.slice();
      for (const { at, byte } of mutations) bad[at] = byte;
      try {
        for (const each of [bad, ...parts.slice(1)]) pair.decoder.stage(each);
        if (pair.decoder.verify(3, 1)) {
          pair.decoder.dropStaged();
          assert.is(bad.length, part.length);
        }
      } catch (error) {
        assert.instance(error, DecodeError);
      } finally {
        pair.decoder.dropStaged();
      }
    }),
    { numRuns: 300, seed: 20261123 },
  );
  for (const each of parts) pair.decoder.stage(each);
  assert.ok(pair.decoder.verify(3, 1), 'the real parts still verify');
});

codec.run();
