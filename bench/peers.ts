/**
 * What the benches of QEMU need and this repository does not hold: small guests that dirty a number
 * of pages over and over, and a pair of stock QEMUs in COLO. In a folder beside the checkout, or
 * named by `MIRROR_PEERS`; without it what needs it is left out.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { whatKvmNeeds, whatQemuNeeds } from '../src/machine/qemu/qemu-host.js';

const FOLDER = process.env['MIRROR_PEERS'] ?? join('..', 'shared', 'peers');
export const COLO_PAIR = join(FOLDER, 'qemu-colo-pair.mjs');

/** Multiboot kernels; each prints `C <n> k` once a loop, in which it writes all its pages. */
export type TinyPages = 16 | 500 | 5_000;

export const tinyPath = (pages: TinyPages): string => join(FOLDER, `tiny-${pages}.elf`);

export const tinyKernel = (pages: TinyPages): Uint8Array =>
  new Uint8Array(readFileSync(tinyPath(pages)));

/** How many loops the guest has done in what it printed. */
export function loopsIn(text: string): number {
  return text.match(/^C \d+ k$/gm)?.length ?? 0;
}

/** Empty: the small guests can be run on KVM here. */
export function whatTinyNeeds(): string {
  if (!existsSync(tinyPath(16))) return `no small guests in ${FOLDER} (MIRROR_PEERS)`;
  return whatQemuNeeds() || whatKvmNeeds();
}

/** Says why rows are missing; true if they are. */
export function leftOut(what: string, missing: string): boolean {
  if (missing !== '') process.stderr.write(`${what}: left out: ${missing}\n`);
  return missing !== '';
}
