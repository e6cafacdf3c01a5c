/**
 * Bytes back to an image. Parts are decoded into staging outside the image; only a verified epoch
 * is committed, whole. A part that does not decode, or an epoch whose hash differs, changes
 * nothing.
 */
import type { GuestRam } from '../machine/machine.js';
import { epochHash, loadHasher, type Hasher } from './hashing.js';
import { HashTree } from './hash-tree.js';
import { KernelMemory, Kind, loadPageKernels, PAGE_BYTES, PAGES_PER_PART } from './page-kernels.js';
import { DecodeError, decodePart, type EpochEnd, type Part } from './part-codec.js';

const DEVICE_BLOCKS_MAX = (64 << 20) / PAGE_BYTES;
const FIRST_STAGING_PAGES = 1_024;

/** Where in the kernels' memory what lies; the staged pages come last. */
const KINDS = 0;
const LENGTHS = PAGE_BYTES;
const INDICES = 2 * PAGE_BYTES;
const LEAVES = 3 * PAGE_BYTES;
const BODY = 4 * PAGE_BYTES;
const STAGING = BODY + PAGES_PER_PART * PAGE_BYTES;

export class PageDecoder {
  private readonly ram: GuestRam;
  private readonly module: WebAssembly.Module;
  private readonly hasher: Hasher;
  private readonly tree: HashTree;
  private readonly pageCount: number;
  private work: KernelMemory;
  /** How many pages have room in the staging area. */
  private capacity = FIRST_STAGING_PAGES;
  private indices = new Uint32Array(FIRST_STAGING_PAGES);
  private leaves = new BigUint64Array(FIRST_STAGING_PAGES);
  private count = 0;
  private end: EpochEnd | null = null;
  private undo: BigUint64Array | null = null;
  private device: Uint8Array = new Uint8Array(0);
  private stagedDevice: Uint8Array | null = null;
  /** Pages of memory among the staged ones; device blocks follow them. */
  private memoryPages = 0;

  static async create(ram: GuestRam): Promise<PageDecoder> {
    return new PageDecoder(ram, await loadPageKernels(), await loadHasher());
  }

  private constructor(ram: GuestRam, module: WebAssembly.Module, hasher: Hasher) {
    this.ram = ram;
    this.module = module;
    this.hasher = hasher;
    this.pageCount = ram.bytes / PAGE_BYTES;
    this.tree = new HashTree(hasher, this.pageCount);
    this.work = new KernelMemory(module, STAGING + this.capacity * PAGE_BYTES);
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
    const staged = this.staged();
    for (let i = 0; i < this.memoryPages; i += 1) {
      const at = i * PAGE_BYTES;
      image.set(staged.subarray(at, at + PAGE_BYTES), this.indices[i] * PAGE_BYTES);
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
    if (this.capacity > FIRST_STAGING_PAGES * 4) this.shrink();
  }

  /** The memory of a kernel only grows: after a storm a small one takes its place. */
  private shrink(): void {
    this.capacity = FIRST_STAGING_PAGES;
    this.work = new KernelMemory(this.module, STAGING + this.capacity * PAGE_BYTES);
    this.indices = new Uint32Array(this.capacity);
    this.leaves = new BigUint64Array(this.capacity);
  }

  private image(): Uint8Array {
    return new Uint8Array(this.ram.memory.buffer, this.ram.offset, this.ram.bytes);
  }

  /** The staged pages, in the order in which they came. */
  private staged(): Uint8Array {
    return new Uint8Array(this.work.memory.buffer, STAGING, this.capacity * PAGE_BYTES);
  }

  private decodePages(part: Part): void {
    const { work, pageCount } = this;
    const { indices, kinds, lengths, body } = part;
    const first = this.count;
    const pages = indices.length;
    const memory = new Uint8Array(work.memory.buffer);
    memory.set(kinds, KINDS);
    new Uint16Array(memory.buffer, LENGTHS, pages).set(lengths);
    new Uint32Array(memory.buffer, INDICES, pages).set(indices);
    memory.set(body, BODY);
    const staged = this.staged();
    const image = this.image();
    for (let i = 0; i < pages; i += 1)
      if (kinds[i] === Kind.delta)
        this.copyPrevious(indices[i], image, staged, (first + i) * PAGE_BYTES);
    const at = STAGING + first * PAGE_BYTES;
    const done = work.kernels.decodePages(BODY, KINDS, LENGTHS, pages, at);
    if (done !== pages)
      throw new DecodeError(`the delta of page ${indices[done]} does not fit a page`);
    this.indices.set(indices, first);
    this.count += pages;
    const beyond = indices.findIndex((page) => page >= pageCount);
    const ofMemory = beyond === -1 ? pages : beyond;
    work.kernels.hashPages(at, INDICES, ofMemory, LEAVES);
    this.leaves.set(new BigUint64Array(memory.buffer, LEAVES, ofMemory), first);
    this.memoryPages += ofMemory;
  }

  private copyPrevious(page: number, image: Uint8Array, staged: Uint8Array, at: number): void {
    const ofMemory = page < this.pageCount;
    const from = (ofMemory ? page : page - this.pageCount) * PAGE_BYTES;
    if (!ofMemory) staged.fill(0, at, at + PAGE_BYTES);
    staged.set((ofMemory ? image : this.device).subarray(from, from + PAGE_BYTES), at);
  }

  /**
   * The device state of this epoch: the one before, cut or grown, with the staged blocks on top.
   */
  private buildDevice(bytes: number): Uint8Array | null {
    const blocks = Math.ceil(bytes / PAGE_BYTES);
    const staged = this.staged();
    const device = new Uint8Array(blocks * PAGE_BYTES);
    device.set(this.device.subarray(0, Math.min(bytes, this.device.length)));
    for (let i = this.memoryPages; i < this.count; i += 1) {
      const block = this.indices[i] - this.pageCount;
      if (block >= blocks) return null;
      const at = i * PAGE_BYTES;
      device.set(staged.subarray(at, at + PAGE_BYTES), block * PAGE_BYTES);
    }
    return device.slice(0, bytes);
  }

  private adoptLeaves(): void {
    this.undo = this.tree.leavesOf(this.indices, this.memoryPages);
    this.tree.update(this.indices, this.leaves, this.memoryPages);
  }

  private takeLeavesBack(): void {
    if (this.undo) this.tree.update(this.indices, this.undo, this.memoryPages);
    this.undo = null;
  }

  private reserve(count: number): void {
    if (count <= this.capacity) return;
    this.capacity = Math.max(count, this.capacity * 2);
    this.work.growTo(STAGING + this.capacity * PAGE_BYTES);
    const indices = new Uint32Array(this.capacity);
    indices.set(this.indices.subarray(0, this.count));
    this.indices = indices;
    const leaves = new BigUint64Array(this.capacity);
    leaves.set(this.leaves.subarray(0, this.count));
    this.leaves = leaves;
  }
}
