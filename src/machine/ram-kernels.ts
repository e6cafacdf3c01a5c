/**
 * The kernels of `wasm/ram/kernels.mjs`: find and copy pages inside the memory that holds guest
 * RAM. All addresses are bytes from the start of that memory; a list is page numbers of 32 bits; a
 * map has one byte a page.
 */
import { readFile } from 'node:fs/promises';

const WASM = new URL('../../wasm/ram-kernels.wasm', import.meta.url);

export interface RamKernels {
  /** Lists the nonzero bytes of a map (`count`: a multiple of 16); returns how many. */
  scan(map: number, count: number, out: number): number;
  gather(ram: number, list: number, count: number, out: number): void;
  refresh(ram: number, shadow: number, list: number, count: number): void;
  mark(list: number, count: number, map: number): void;
  /** Marks each page that differs between `a` and `b`. */
  compare(a: number, b: number, pages: number, map: number): void;
  copy(to: number, from: number, bytes: number): void;
}

let compiled: Promise<WebAssembly.Module> | null = null;

export async function loadRamKernels(memory: WebAssembly.Memory): Promise<RamKernels> {
  compiled ??= readFile(WASM).then((bytes) => WebAssembly.compile(new Uint8Array(bytes)));
  const instance = await WebAssembly.instantiate(await compiled, { machine: { memory } });
  return instance.exports as unknown as RamKernels;
}
