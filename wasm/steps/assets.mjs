// Copies the files that src modules read at run time next to their compiled modules.
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const assets = ['src/guest/builtin.elf'];

export function build() {
  for (const asset of assets) {
    if (!existsSync(root + asset)) continue;
    mkdirSync(dirname(`${root}dist/${asset}`), { recursive: true });
    cpSync(root + asset, `${root}dist/${asset}`);
  }
}
