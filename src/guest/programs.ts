/** Programs out of unpacked packages, with the shared libraries that they need. */
import { existsSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { elfNeeds } from './elf-needs.js';
import { LinuxBuildError } from './linux-build-error.js';

export interface GuestFile {
  /** Relative to the root. */
  readonly path: string;
  readonly bytes: Uint8Array;
}

const LIBRARY_FOLDERS = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu', 'usr/lib', 'lib'];
const BIN = 'bin';
const LIBRARIES = 'lib/x86_64-linux-gnu';

/** Symbolic links are followed inside `root` alone; empty: not there. */
function inside(root: string, path: string): string {
  const full = join(root, path);
  if (!existsSync(full)) return '';
  const real = realpathSync(full);
  return real.startsWith(realpathSync(root)) && statSync(real).isFile() ? real : '';
}

function findLibrary(root: string, name: string): string {
  for (const folder of LIBRARY_FOLDERS) {
    const path = inside(root, join(folder, name));
    if (path !== '') return path;
  }
  throw new LinuxBuildError(`the packages hold no shared library ${name}`);
}

/** The programs go to `/bin`. What is no ELF program or script is left out. */
export function collectPrograms(root: string, paths: readonly string[]): GuestFile[] {
  const files = new Map<string, Uint8Array>();
  const add = (path: string, from: string): void => {
    if (files.has(path)) return;
    const bytes = readFileSync(from);
    files.set(path, bytes);
    const needs = elfNeeds(bytes);
    if (!needs) return;
    const { interpreter, libraries } = needs;
    if (interpreter !== '') {
      const loader = interpreter.slice(1);
      add(loader, inside(root, loader) || findLibrary(root, basename(loader)));
    }
    for (const name of libraries) add(join(LIBRARIES, name), findLibrary(root, name));
  };
  for (const path of paths) {
    const from = inside(root, path);
    if (from !== '') add(join(BIN, basename(path)), from);
  }
  return [...files].map(([path, bytes]) => ({ path, bytes }));
}
