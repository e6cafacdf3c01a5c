/** A daemon's state directory: its own, and of no one else's business. */
import { mkdirSync, statSync } from 'node:fs';
import { DirLock } from '../pool/dir-lock.js';
import { HostError } from './host-error.js';

/** Makes it if need be; the lock holds until `release`, or until this process is gone. */
export function claimStateDir(path: string): DirLock {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const { mode, uid } = statSync(path);
  const mine = process.getuid === undefined || uid === process.getuid();
  if (!mine || (mode & 0o077) !== 0)
    throw new HostError(
      'STATE_DIR_OPEN',
      `the state directory ${path} is open to others: nothing was started; ` +
        (mine ? `run chmod 700 ${path}` : 'use one that belongs to you'),
    );
  return DirLock.acquire(path);
}
