/** The built-in guest's kernel: a multiboot ELF, built from `builtin/` by `builtin/build.sh`. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const path = fileURLToPath(new URL('./builtin.elf', import.meta.url));

/** The ELF's bytes; `boot: { kernel: builtin }` of a VM's file. */
export function builtinKernel(): Uint8Array {
  return new Uint8Array(readFileSync(path));
}
