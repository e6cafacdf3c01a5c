/** The hash tree over all pages of a memory, kept up to date by dirty page. */
import { FAN_OUT, type Hasher } from './hashing.js';

const ZERO_PAGE = new Uint8Array(4096);

export class HashTree {
  private readonly hasher: Hasher;
  /** `levels[0]` are the leaves, the last level is the root alone. */
  private readonly levels: BigUint64Array[] = [];
  private readonly ofZeros: BigUint64Array[];

  /** Starts as the tree over a memory of zeros. */
  constructor(hasher: Hasher, pageCount: number) {
    this.hasher = hasher;
    const leaves = new BigUint64Array(pageCount);
    for (let page = 0; page < pageCount; page += 1)
      leaves[page] = hasher.hash(ZERO_PAGE, BigInt(page));
    this.levels.push(leaves);
    while (this.levels.at(-1)!.length > 1) {
      const below = this.levels.at(-1)!;
      const level = new BigUint64Array(Math.ceil(below.length / FAN_OUT));
      for (let node = 0; node < level.length; node += 1) level[node] = this.hashNode(below, node);
      this.levels.push(level);
    }
    this.ofZeros = this.levels.map((level) => level.slice());
  }

  get root(): bigint {
    return this.levels.at(-1)![0];
  }

  /** A copy of the leaves of `count` pages. */
  leavesOf(pages: Uint32Array, count: number): BigUint64Array {
    const leaves = new BigUint64Array(count);
    const halves = halvesOf(leaves);
    const own = halvesOf(this.levels[0]);
    for (let i = 0; i < count; i += 1) {
      halves[2 * i] = own[2 * pages[i]];
      halves[2 * i + 1] = own[2 * pages[i] + 1];
    }
    return leaves;
  }

  reset(): void {
    this.levels.forEach((level, index) => level.set(this.ofZeros[index]));
  }

  /** Sets leaves and recomputes the nodes above them; `pages` ascends. */
  update(pages: Uint32Array, leaves: BigUint64Array, count: number): void {
    const own = halvesOf(this.levels[0]);
    const halves = halvesOf(leaves);
    let changed = new Set<number>();
    for (let i = 0; i < count; i += 1) {
      own[2 * pages[i]] = halves[2 * i];
      own[2 * pages[i] + 1] = halves[2 * i + 1];
      changed.add(Math.floor(pages[i] / FAN_OUT));
    }
    for (let index = 1; index < this.levels.length; index += 1) {
      const level = this.levels[index];
      const above = new Set<number>();
      for (const node of changed) {
        level[node] = this.hashNode(this.levels[index - 1], node);
        above.add(Math.floor(node / FAN_OUT));
      }
      changed = above;
    }
  }

  private hashNode(below: BigUint64Array, node: number): bigint {
    const children = below.subarray(node * FAN_OUT, (node + 1) * FAN_OUT);
    const bytes = new Uint8Array(children.buffer, children.byteOffset, children.byteLength);
    return this.hasher.hash(bytes, BigInt(node));
  }
}

/** The same memory in halves, to be copied without a BigInt for each hash. */
function halvesOf(hashes: BigUint64Array): Uint32Array {
  return new Uint32Array(hashes.buffer, hashes.byteOffset, hashes.length * 2);
}
