/**
 * A capture to bytes. Keeps a shadow of exactly what the secondary holds (memory and device
 * state), so that each page goes as its difference, and the hash tree over that shadow.
 */
import { epochHash, loadHasher, type Hasher } from './hashing.js';
import { HashTree } from './hash-tree.js';
import {
  KernelMemory,
  loadPageKernels,
  PAGE_BYTES,
  PAGES_PER_PART,
  type PageKernels,
} from './page-kernels.js';
import { encodePart, type EpochEnd } from './part-codec.js';

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

/** Where in the kernels' memory what lies; the shadow of all pages comes last. */
const INDICES = 0;
const KINDS = PAGE_BYTES;
const LENGTHS = 2 * PAGE_BYTES;
const LEAVES = 3 * PAGE_BYTES;
const NOW = 4 * PAGE_BYTES;
const WAS = NOW + PAGES_PER_PART * PAGE_BYTES;
const OUT = WAS + PAGES_PER_PART * PAGE_BYTES;
const SHADOW = OUT + (PAGES_PER_PART + 1) * PAGE_BYTES;

/** The kernels' memory, and the parts of it that are looked at from here. */
class Workspace {
  readonly kernels: PageKernels;
  readonly bytes: Uint8Array;
  readonly indices: Uint32Array;
  readonly leaves: BigUint64Array;

  constructor(module: WebAssembly.Module, pageCount: number) {
    const { kernels, memory } = new KernelMemory(module, SHADOW + pageCount * PAGE_BYTES);
    this.kernels = kernels;
    this.bytes = new Uint8Array(memory.buffer);
    this.indices = new Uint32Array(memory.buffer, INDICES, PAGES_PER_PART);
    this.leaves = new BigUint64Array(memory.buffer, LEAVES, PAGES_PER_PART);
  }
}

export class PageEncoder {
  private readonly module: WebAssembly.Module;
  private readonly hasher: Hasher;
  private readonly tree: HashTree;
  private readonly pageCount: number;
  private work: Workspace;
  private device = new Uint8Array(0);
  private bodyBytes = 0;
  private pages = 0;
  private parts: Uint8Array[] = [];
  private partCount = 0;
  private onPart: PartListener = () => {};

  static async create(pageCount: number): Promise<PageEncoder> {
    return new PageEncoder(await loadPageKernels(), await loadHasher(), pageCount);
  }

  private constructor(module: WebAssembly.Module, hasher: Hasher, pageCount: number) {
    this.module = module;
    this.hasher = hasher;
    this.pageCount = pageCount;
    this.tree = new HashTree(hasher, pageCount);
    this.work = new Workspace(this.module, this.pageCount);
  }

  /** The secondary starts from nothing. */
  reset(): void {
    // A new memory rather than a fill: its pages take no room until they are written.
    this.work = new Workspace(this.module, this.pageCount);
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
    for (let from = 0; from < pageCount;) {
      const count = this.room(pageCount - from);
      const batch = pageIndices.subarray(from, from + count);
      if (count > 0 && batch[count - 1] >= this.pageCount) throw new Error('no such page');
      this.work.bytes.set(pageBytes.subarray(from * PAGE_BYTES, (from + count) * PAGE_BYTES), NOW);
      this.work.indices.set(batch, this.pages);
      this.work.kernels.hashPages(NOW, INDICES + this.pages * 4, count, LEAVES);
      this.tree.update(batch, this.work.leaves, count);
      this.encodeBatch(count, SHADOW);
      from += count;
    }
  }

  /** How many of `wanted` pages still fit the part; a part that is full is sent first. */
  private room(wanted: number): number {
    if (this.pages === PAGES_PER_PART) this.flush(null);
    return Math.min(wanted, PAGES_PER_PART - this.pages);
  }

  /** The next `count` pages of the part, which lie at NOW, against those of `shadow`. */
  private encodeBatch(count: number, shadow: number): void {
    const { pages } = this;
    this.bodyBytes += this.work.kernels.encodePages(
      NOW,
      INDICES + pages * 4,
      count,
      shadow,
      OUT + this.bodyBytes,
      KINDS + pages,
      LENGTHS + pages * 2,
    );
    this.pages += count;
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
  private encodeDevice(state: Uint8Array, changed: readonly number[]): void {
    const known = this.device.subarray(0, state.length);
    for (let from = 0; from < changed.length;) {
      const count = this.room(changed.length - from);
      for (const region of [NOW, WAS]) this.work.bytes.fill(0, region, region + count * PAGE_BYTES);
      for (let i = 0; i < count; i += 1) {
        const at = changed[from + i] * PAGE_BYTES;
        this.work.bytes.set(state.subarray(at, at + PAGE_BYTES), NOW + i * PAGE_BYTES);
        this.work.bytes.set(known.subarray(at, at + PAGE_BYTES), WAS + i * PAGE_BYTES);
        this.work.indices[this.pages + i] = i;
      }
      const first = this.pages;
      this.encodeBatch(count, WAS);
      for (let i = 0; i < count; i += 1)
        this.work.indices[first + i] = this.pageCount + changed[from + i];
      from += count;
    }
    this.device = state.slice();
  }

  private flush(end: EpochEnd | null): void {
    const { pages } = this;
    const { buffer } = this.work.bytes;
    const part = encodePart({
      indices: this.work.indices.subarray(0, pages),
      kinds: new Uint8Array(buffer, KINDS, pages),
      lengths: new Uint16Array(buffer, LENGTHS, pages),
      body: this.work.bytes.subarray(OUT, OUT + this.bodyBytes),
      end,
    });
    this.onPart(part, this.parts.length, this.partCount);
    this.parts.push(part);
    this.pages = 0;
    this.bodyBytes = 0;
  }
}
