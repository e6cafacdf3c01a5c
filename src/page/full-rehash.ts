/**
 * The memory root computed from nothing but the bytes, by straightforward code of its own: a proof
 * of an image must not rest on the incremental tree that it checks.
 */
import createXxhash from 'xxhash-wasm';
import type { GuestRam } from '../machine/machine.js';

const PAGE_BYTES = 4096;
const FAN_OUT = 256;

export async function fullRehash(ram: GuestRam): Promise<bigint> {
  const { h64Raw } = await createXxhash();
  const image = new Uint8Array(ram.memory.buffer, ram.offset, ram.bytes);
  let level: bigint[] = [];
  for (let page = 0; page * PAGE_BYTES < image.length; page += 1) {
    const bytes = image.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    level.push(h64Raw(bytes, BigInt(page)));
  }
  while (level.length > 1) {
    const above: bigint[] = [];
    for (let node = 0; node * FAN_OUT < level.length; node += 1) {
      const children = level.slice(node * FAN_OUT, (node + 1) * FAN_OUT);
      const bytes = Buffer.alloc(children.length * 8);
      children.forEach((hash, index) => bytes.writeBigUInt64LE(hash, index * 8));
      above.push(h64Raw(bytes, BigInt(node)));
    }
    level = above;
  }
  return level[0];
}
