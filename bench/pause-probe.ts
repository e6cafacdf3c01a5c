/**
 * Loaded into every process of a pool by `NODE_OPTIONS=--import`: writes down how long the QEMU of
 * its process stood still, one pause a line, in `MIRROR_PAUSES/<pid>`.
 */
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { PauseWatch } from './pause-watch.js';

const FLUSH_MS = 250;
const folder = process.env['MIRROR_PAUSES'];

if (folder !== undefined && isMainThread) {
  const watch = new PauseWatch();
  const flush = (): void => {
    const pauses = watch.take();
    if (pauses.length === 0) return;
    const lines = pauses.map((pauseMs) => `${pauseMs.toFixed(3)}\n`);
    appendFileSync(join(folder, String(process.pid)), lines.join(''));
  };
  setInterval(flush, FLUSH_MS).unref();
}
