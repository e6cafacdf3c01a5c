/** Disk images are locked by the QEMU that runs the VM, until it goes on or its process ends. */
import { setTimeout as sleep } from 'node:timers/promises';
import { QemuError } from './qemu-error.js';
import type { QmpClient } from './qmp-client.js';

const LOCKED = /Failed to get .*lock/;
const LOCK_MS_MAX = 60_000;
const RETRY_MS = 20;

/**
 * A QEMU that was migrated away has given its images up, and COLO does not ask for them again: a
 * first write would end it. Going on takes them back, and the VM has run for a moment then. A reset
 * does not undo that: the chipset would still hide the ROM of a firmware that was just moving.
 */
export async function takeImagesBack(qmp: QmpClient): Promise<void> {
  await qmp.execute('cont');
  await qmp.execute('stop');
}

/**
 * Tries again while another process has an image locked: after a takeover the last owner may be
 * there for some moments yet, and until it has ended nobody else may write.
 */
export async function onceUnlocked(
  goOn: () => Promise<unknown>,
  waitMsMax = LOCK_MS_MAX,
): Promise<void> {
  const endAt = Date.now() + waitMsMax;
  for (;;) {
    try {
      await goOn();
      return;
    } catch (error) {
      if (!(error instanceof Error) || !LOCKED.test(error.message)) throw error;
      if (Date.now() > endAt)
        throw new QemuError(
          'DISK_LOCKED',
          `a disk was locked by another process for ${waitMsMax} ms: ${error.message}`,
          { cause: error },
        );
    }
    await sleep(RETRY_MS);
  }
}
