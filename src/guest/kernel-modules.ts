/** Finds kernel modules in an unpacked kernel package, with what each depends on, in load order. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface KernelModule {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const canonical = (name: string): string => name.replace(/-/g, '_');

/** The names in the module's own `depends=`, of its section `.modinfo`. */
function dependsOf(bytes: Buffer): string[] {
  const at = bytes.indexOf('\0depends=', 0, 'latin1');
  if (at < 0) return [];
  const start = at + '\0depends='.length;
  const text = bytes.toString('latin1', start, bytes.indexOf(0, start));
  return text.split(',').filter((name) => name !== '');
}

/** `wanted` and all they depend on, each after what it needs. What is built in is left out. */
export function collectModules(folder: string, wanted: readonly string[]): KernelModule[] {
  const paths = new Map<string, string>();
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const name = /([^/]+)\.ko$/.exec(path)?.[1];
    if (name !== undefined) paths.set(canonical(name), join(folder, path));
  }
  const found = new Map<string, KernelModule>();
  const visiting = new Set<string>();
  const visit = (name: string): void => {
    const key = canonical(name);
    const path = paths.get(key);
    if (path === undefined || visiting.has(key)) return;
    visiting.add(key);
    const bytes = readFileSync(path);
    for (const needed of dependsOf(bytes)) visit(needed);
    found.set(key, { name: key, bytes });
  };
  for (const name of wanted) visit(name);
  return [...found.values()];
}
