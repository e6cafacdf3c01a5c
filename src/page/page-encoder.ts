/**
 * A capture to bytes. Keeps a shadow of exactly what the secondary holds (memory and device
 * state), so that each page goes as its difference, and the hash tree over that shadow.
 */
import { encodePage, PAGE_BYTES } from './delta.js';
import { epochHash, loadHasher, type Hasher } from './hashing.js';
import { HashTree } from './hash-tree.js';
import { encodePart, PAGES_PER_PART, type EpochEnd } from './part-codec.js';

export interface EpochInput {
  readonly generation: number;
  readonly epoch: number;
  readonly pageIndices: Uint32Array;
  readonly pageBytes: Uint8Array;
  readonly pageCount: number;
  readonly deviceState: Uint8Array;
}

export interface EncodedEpoch {
  readonly parts: Uint8Array[];
  readonly memoryRoot: bigint;
  readonly epochHash: bigint;
  readonly dirtyBytes: number;
  readonly wireBytes: number;
}

export type PartListener = (part: Uint8Array, index: number, partCount: number) => void;

const WORDS = PAGE_BYTES / 4;

export class PageEncoder {
  private readonly hasher: Hasher;
  private readonly tree: HashTree;
  private readonly pageCount: number;
  private shadow: Uint8Array;
  private shadowWords: Uint32Array;
  private device = new Uint8Array(0);
  private readonly body = new Uint8Array((PAGES_PER_PART + 1) * PAGE_BYTES);
  private readonly kinds = new Uint8Array(PAGES_PER_PART);
  private readonly lengths = new Uint16Array(PAGES_PER_PART);
  private readonly indices = new Uint32Array(PAGES_PER_PART);
  private bodyBytes = 0;
  private pages = 0;
  private parts: Uint8Array[] = [];
  private partCount = 0;
  private onPart: PartListener = () => {};

  static async create(pageCount: number): Promise<PageEncoder> {
    return new PageEncoder(await loadHasher(), pageCount);
  }

  private constructor(hasher: Hasher, pageCount: number) {
    this.hasher = hasher;
    this.pageCount = pageCount;
    this.tree = new HashTree(hasher, pageCount);
    this.shadow = new Uint8Array(pageCount * PAGE_BYTES);
    this.shadowWords = new Uint32Array(this.shadow.buffer);
  }

  /** The secondary starts from nothing. */
  reset(): void {
    // A new buffer rather than a fill: its pages take no memory until they are written.
    this.shadow = new Uint8Array(this.pageCount * PAGE_BYTES);
    this.shadowWords = new Uint32Array(this.shadow.buffer);
    this.device = new Uint8Array(0);
    this.tree.reset();
  }

  /** `onPart` hears of each part as soon as it is made, long before the last one is. */
  encode(input: EpochInput, onPart: PartListener = () => {}): EncodedEpoch {
    this.parts = [];
    this.onPart = onPart;
    const blocks = this.changedBlocks(input.deviceState);
    this.partCount = Math.max(1, Math.ceil((input.pageCount + blocks.length) / PAGES_PER_PART));
    this.encodePages(input);
    this.encodeDevice(input.deviceState, blocks);
    const { generation, epoch } = input;
    const memoryRoot = this.tree.root;
    const deviceHash = this.hasher.hash(this.device, 0n);
    const hash = epochHash(this.hasher, generation, epoch, memoryRoot, deviceHash);
    const deviceBytes = this.device.length;
    this.flush({ generation, epoch, deviceBytes, memoryRoot, epochHash: hash });
    if (this.parts.length !== this.partCount) throw new Error('parts were counted wrongly');
    return {
      parts: this.parts,
      memoryRoot,
      epochHash: hash,
      dirtyBytes: input.pageCount * PAGE_BYTES,
      wireBytes: this.parts.reduce((sum, part) => sum + part.length, 0),
    };
  }

  private encodePages(input: EpochInput): void {
    const { pageIndices, pageBytes, pageCount } = input;
    const now = new Uint32Array(pageBytes.buffer, pageBytes.byteOffset, pageCount * WORDS);
    const leaves = new BigUint64Array(pageCount);
    for (let i = 0; i < pageCount; i += 1) {
      const page = pageIndices[i];
      this.add(page, now, i * WORDS, this.shadowWords, page * WORDS);
      const bytes = pageBytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      this.shadow.set(bytes, page * PAGE_BYTES);
      leaves[i] = this.tree.hashLeaf(
        page,
        this.shadow.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES),
      );
    }
    this.tree.update(pageIndices, leaves, pageCount);
  }

  /** Blocks of the device state that differ from the epoch before. */
  private changedBlocks(state: Uint8Array): number[] {
    const changed: number[] = [];
    for (let from = 0; from < state.length; from += PAGE_BYTES) {
      const now = state.subarray(from, from + PAGE_BYTES);
      const before = this.device.subarray(from, from + PAGE_BYTES);
      if (Buffer.compare(now, before) !== 0) changed.push(from / PAGE_BYTES);
    }
    return changed;
  }

  /** Device state goes by blocks of a page, numbered on from the last page of memory. */
  private encodeDevice(state: Uint8Array, changed: number[]): void {
    const blocks = Math.ceil(state.length / PAGE_BYTES);
    const before = new Uint8Array(blocks * PAGE_BYTES);
    before.set(this.device.subarray(0, before.length));
    before.fill(0, Math.min(this.device.length, state.length));
    const now = new Uint8Array(blocks * PAGE_BYTES);
    now.set(state);
    const nowWords = new Uint32Array(now.buffer);
    const beforeWords = new Uint32Array(before.buffer);
    for (const block of changed)
      this.add(this.pageCount + block, nowWords, block * WORDS, beforeWords, block * WORDS);
    this.device = now.slice(0, state.length);
  }

  private add(
    index: number,
    now: Uint32Array,
    at: number,
    before: Uint32Array,
    was: number,
  ): void {
    if (this.pages === PAGES_PER_PART) this.flush(null);
    const { kind, bytes } = encodePage(now, at, before, was, this.body, this.bodyBytes);
    this.indices[this.pages] = index;
    this.kinds[this.pages] = kind;
    this.lengths[this.pages] = bytes;
    this.pages += 1;
    this.bodyBytes += bytes;
  }

  private flush(end: EpochEnd | null): void {
    const { pages } = this;
    const part = encodePart({
      indices: this.indices.subarray(0, pages),
      kinds: this.kinds.subarray(0, pages),
      lengths: this.lengths.subarray(0, pages),
      body: this.body.subarray(0, this.bodyBytes),
      end,
    });
    this.onPart(part, this.parts.length, this.partCount);
    this.parts.push(part);
    this.pages = 0;
    this.bodyBytes = 0;
  }
}
