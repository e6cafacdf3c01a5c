/**
 * One process at a time in a state directory: the lock is the kernel's, so it ends with its holder,
 * however that dies. Two witnesses on one folder would both believe what they hold in memory.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { MirrorError } from '../core/errors.js';

export class DirLock {
  private readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  static acquire(dir: string): DirLock {
    const path = join(dir, 'lock');
    // Not inherited: children of the holder do not hold it on.
    const fd = openSync(path, 'a+', 0o600);
    // `flock` locks the open file that we share with it, and that stays ours when it ends.
    const { status, error } = spawnSync('flock', ['-n', '3'], {
      stdio: ['ignore', 'ignore', 'ignore', fd],
    });
    const held = error ? !claimByPid(path, fd) : status !== 0;
    if (held) {
      closeSync(fd);
      throw new MirrorError(
        'STATE_DIR_IN_USE',
        `another process works in ${dir}: nothing was changed; stop that one, or use another ` +
          '--state-dir',
      );
    }
    return new DirLock(fd);
  }

  release(): void {
    closeSync(this.fd);
  }
}

/** Where there is no `flock`: the last line of the file names the holder, if that still lives. */
function claimByPid(path: string, fd: number): boolean {
  const holder = Number(readFileSync(path, 'utf8').trim().split('\n').at(-1));
  if (holder > 0 && holder !== process.pid && isAlive(holder)) return false;
  writeSync(fd, `${process.pid}\n`);
  return true;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
