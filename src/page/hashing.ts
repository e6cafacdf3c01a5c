/**
 * Hashes of pages, of memory and of epochs, all XXH64. A leaf is the hash of a page's bytes seeded
 * with the page's index; the memory root is the top of a tree of fan-out 256 over the leaves.
 */
import createXxhash from 'xxhash-wasm';

export const FAN_OUT = 256;

export interface Hasher {
  /** XXH64 of `bytes`, seeded. */
  hash(bytes: Uint8Array, seed: bigint): bigint;
}

export async function loadHasher(): Promise<Hasher> {
  const { h64Raw } = await createXxhash();
  return { hash: (bytes, seed) => h64Raw(bytes, seed) };
}

/** Hash over generation, number, memory root, device state and disk root (none yet: 0). */
export function epochHash(
  hasher: Hasher,
  generation: number,
  epoch: number,
  memoryRoot: bigint,
  deviceHash: bigint,
): bigint {
  const fields = new BigUint64Array([
    BigInt(generation),
    BigInt(epoch),
    memoryRoot,
    deviceHash,
    0n,
  ]);
  return hasher.hash(new Uint8Array(fields.buffer), 0n);
}
