/**
 * Bytes back to an image. Parts are decoded into staging outside the image; only a verified epoch
 * is committed, whole. A part that does not decode, or an epoch whose hash differs, changes
 * nothing.
 */
import type { GuestRam } from '../machine/machine.js';
import { applyDelta, Kind, PAGE_BYTES } from './delta.js';
import { epochHash, loadHasher, type Hasher } from './hashing.js';
import { HashTree } from './hash-tree.js';
import { DecodeError, decodePart, type EpochEnd, type Part } from './part-codec.js';

const DEVICE_BLOCKS_MAX = (64 << 20) / PAGE_BYTES;
const FIRST_STAGING_PAGES = 1_024;

export class PageDecoder {
  private readonly ram: GuestRam;
  private readonly hasher: Hasher;
  private readonly tree: HashTree;
  private readonly pageCount: number;
  private pages = new Uint8Array(FIRST_STAGING_PAGES * PAGE_BYTES);
  private indices = new Uint32Array(FIRST_STAGING_PAGES);
  private count = 0;
  private end: EpochEnd | null = null;
  private undo: BigUint64Array | null = null;
  private device: Uint8Array = new Uint8Array(0);
  private stagedDevice: Uint8Array | null = null;
  /** Pages of memory among the staged ones; device blocks follow them. */
  private memoryPages = 0;

  static async create(ram: GuestRam): Promise<PageDecoder> {
    return new PageDecoder(ram, await loadHasher());
  }

  private constructor(ram: GuestRam, hasher: Hasher) {
    this.ram = ram;
    this.hasher = hasher;
    this.pageCount = ram.bytes / PAGE_BYTES;
    this.tree = new HashTree(hasher, this.pageCount);
  }

  get deviceState(): Uint8Array {
    return this.device;
  }

  get memoryRoot(): bigint {
    return this.tree.root;
  }

  /** The caller has zeroed the image. */
  reset(): void {
    this.dropStaged();
    this.tree.reset();
    this.device = new Uint8Array(0);
  }

  stage(bytes: Uint8Array): void {
    if (this.end) throw new DecodeError('a part after the end of its epoch');
    const part = decodePart(bytes, this.pageCount + DEVICE_BLOCKS_MAX);
    const last = this.count === 0 ? -1 : this.indices[this.count - 1];
    if (part.indices.length > 0 && part.indices[0] <= last)
      throw new DecodeError('parts out of order');
    this.reserve(this.count + part.indices.length);
    this.decodePages(part);
    this.end = part.end;
  }

  verify(generation: number, epoch: number): boolean {
    const { end } = this;
    if (!end || end.generation !== generation || end.epoch !== epoch || this.undo) return false;
    const device = this.buildDevice(end.deviceBytes);
    if (!device) return false;
    this.adoptLeaves();
    const root = this.tree.root;
    const deviceHash = this.hasher.hash(device, 0n);
    const hash = epochHash(this.hasher, generation, epoch, root, deviceHash);
    if (root !== end.memoryRoot || hash !== end.epochHash) {
      this.takeLeavesBack();
      return false;
    }
    this.stagedDevice = device;
    return true;
  }

  commit(): void {
    if (!this.stagedDevice) throw new Error('commit of an epoch that was not verified');
    const image = this.image();
    for (let i = 0; i < this.memoryPages; i += 1) {
      const at = i * PAGE_BYTES;
      image.set(this.pages.subarray(at, at + PAGE_BYTES), this.indices[i] * PAGE_BYTES);
    }
    this.device = this.stagedDevice;
    this.undo = null;
    this.clear();
  }

  dropStaged(): void {
    this.takeLeavesBack();
    this.clear();
  }

  private clear(): void {
    this.count = 0;
    this.memoryPages = 0;
    this.end = null;
    this.stagedDevice = null;
    if (this.indices.length > FIRST_STAGING_PAGES * 4) {
      this.pages = new Uint8Array(FIRST_STAGING_PAGES * PAGE_BYTES);
      this.indices = new Uint32Array(FIRST_STAGING_PAGES);
    }
  }

  private image(): Uint8Array {
    return new Uint8Array(this.ram.memory.buffer, this.ram.offset, this.ram.bytes);
  }

  private decodePages(part: Part): void {
    const image = this.image();
    let from = 0;
    for (let i = 0; i < part.indices.length; i += 1) {
      const page = part.indices[i];
      const at = this.count * PAGE_BYTES;
      const bytes = part.lengths[i];
      if (part.kinds[i] === Kind.whole) this.pages.set(part.body.subarray(from, from + bytes), at);
      else if (part.kinds[i] === Kind.zero) this.pages.fill(0, at, at + PAGE_BYTES);
      else {
        this.copyPrevious(page, image, at);
        if (!applyDelta(part.body, from, bytes, this.pages, at))
          throw new DecodeError(`the delta of page ${page} does not fit a page`);
      }
      from += bytes;
      this.indices[this.count] = page;
      this.count += 1;
      if (page < this.pageCount) this.memoryPages += 1;
    }
  }

  private copyPrevious(page: number, image: Uint8Array, at: number): void {
    if (page < this.pageCount) {
      const from = page * PAGE_BYTES;
      this.pages.set(image.subarray(from, from + PAGE_BYTES), at);
      return;
    }
    const from = (page - this.pageCount) * PAGE_BYTES;
    this.pages.fill(0, at, at + PAGE_BYTES);
    this.pages.set(this.device.subarray(from, from + PAGE_BYTES), at);
  }

  /**
   * The device state of this epoch: the one before, cut or grown, with the staged blocks on top.
   */
  private buildDevice(bytes: number): Uint8Array | null {
    const blocks = Math.ceil(bytes / PAGE_BYTES);
    const device = new Uint8Array(blocks * PAGE_BYTES);
    device.set(this.device.subarray(0, Math.min(bytes, this.device.length)));
    for (let i = this.memoryPages; i < this.count; i += 1) {
      const block = this.indices[i] - this.pageCount;
      if (block >= blocks) return null;
      const at = i * PAGE_BYTES;
      device.set(this.pages.subarray(at, at + PAGE_BYTES), block * PAGE_BYTES);
    }
    return device.slice(0, bytes);
  }

  private adoptLeaves(): void {
    const count = this.memoryPages;
    const leaves = new BigUint64Array(count);
    const undo = new BigUint64Array(count);
    for (let i = 0; i < count; i += 1) {
      const page = this.indices[i];
      undo[i] = this.tree.leaf(page);
      const at = i * PAGE_BYTES;
      leaves[i] = this.tree.hashLeaf(page, this.pages.subarray(at, at + PAGE_BYTES));
    }
    this.undo = undo;
    this.tree.update(this.indices, leaves, count);
  }

  private takeLeavesBack(): void {
    if (this.undo) this.tree.update(this.indices, this.undo, this.memoryPages);
    this.undo = null;
  }

  private reserve(count: number): void {
    if (count <= this.indices.length) return;
    const capacity = Math.max(count, this.indices.length * 2);
    const pages = new Uint8Array(capacity * PAGE_BYTES);
    pages.set(this.pages.subarray(0, this.count * PAGE_BYTES));
    const indices = new Uint32Array(capacity);
    indices.set(this.indices.subarray(0, this.count));
    this.pages = pages;
    this.indices = indices;
  }
}
