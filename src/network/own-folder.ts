/** Folders for unix sockets: nobody else may enter them, and they go when their process is gone. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * A new folder of this process, `kind` in its name; those that dead processes left are removed.
 * Paths of unix sockets are short: in the system's folder for temporary files, not the state's.
 */
export function ownFolder(kind: string): string {
  const parent = process.env['XDG_RUNTIME_DIR'] ?? tmpdir();
  for (const name of readdirSync(parent)) {
    const [, pid] = /^mirror-[a-z]+-(\d+)-/.exec(name) ?? [];
    if (pid && !isAlive(Number(pid))) rmSync(join(parent, name), { recursive: true, force: true });
  }
  return mkdtempSync(join(parent, `mirror-${kind}-${process.pid}-`));
}
