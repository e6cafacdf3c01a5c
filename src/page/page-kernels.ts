/**
 * The kernels of `wasm/page/kernels.ts`: work over whole batches of pages, inside a memory that the
 * caller lays out. Pointers are bytes from the start of that memory.
 */
import { readFile } from 'node:fs/promises';

const WASM = new URL('../../wasm/page-kernels.wasm', import.meta.url);
const WASM_PAGE_BYTES = 65_536;

export const PAGE_BYTES = 4096;
export const PAGES_PER_PART = 256;

/** How a page travels: nothing of it, what is new in it, or all of it. */
export const Kind = { zero: 0, delta: 1, whole: 2 } as const;

export interface PageKernels {
  /** Deltas of `count` pages against a shadow, which is brought up to date; bytes written. */
  encodePages(
    now: number,
    indices: number,
    count: number,
    shadow: number,
    out: number,
    kinds: number,
    lengths: number,
  ): number;
  /** `count` if every delta fitted its page, else the first page that did not. */
  decodePages(body: number, kinds: number, lengths: number, count: number, pages: number): number;
  /** XXH64 of each page, seeded with its index. */
  hashPages(pages: number, indices: number, count: number, leaves: number): void;
}

/** Memory for kernels: its regions one after the other, each from a page boundary on. */
export class KernelMemory {
  readonly memory: WebAssembly.Memory;
  readonly kernels: PageKernels;

  constructor(module: WebAssembly.Module, bytes: number) {
    this.memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / WASM_PAGE_BYTES) });
    const instance = new WebAssembly.Instance(module, { env: { memory: this.memory } });
    this.kernels = instance.exports as unknown as PageKernels;
  }

  /** Views made before are void afterwards. */
  growTo(bytes: number): void {
    const missing = bytes - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / WASM_PAGE_BYTES));
  }
}

let compiled: Promise<WebAssembly.Module> | null = null;

export function loadPageKernels(): Promise<WebAssembly.Module> {
  compiled ??= readFile(WASM).then((bytes) => WebAssembly.compile(new Uint8Array(bytes)));
  return compiled;
}
