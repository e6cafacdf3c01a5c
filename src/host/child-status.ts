/** The status of a VM whose process is gone or does not answer: what is known, and why no more. */
import type { Percentiles } from '../checkpoint/figures.js';
import type { VmChild } from './vm-child.js';
import type { VmStatus } from './vm-status.js';

const ANSWER_MS_MAX = 2_000;
const NO_FIGURE: Percentiles = { p50: 0, p99: 0, max: 0 };

export interface ToldStatus extends VmStatus {
  /** Why the VM is in its last state. */
  readonly reason?: string;
}

export async function statusOf(child: VmChild): Promise<ToldStatus> {
  const { ended } = child;
  if (ended) {
    const state = (ended.state === 'released' ? 'stopped' : ended.state) as VmStatus['state'];
    return { ...lastKnown(child), state, reason: ended.reason };
  }
  try {
    return (await child.request('status', {}, ANSWER_MS_MAX)) as VmStatus;
  } catch {
    const text = 'the VM process does not answer: what is shown is the last that it said';
    return { ...lastKnown(child), warnings: [{ code: 'NO_ANSWER', text }] };
  }
}

function lastKnown(child: VmChild): VmStatus {
  const { init, incarnation, pid } = child;
  return {
    ...{ role: init.role, state: 'starting', generation: 0, epoch: 0, committedEpoch: 0 },
    ...{ owner: '', peer: '', ...child.status },
    ...{ name: init.vmName, vmUuid: init.vmUuid, host: init.host.name, incarnation, pid },
    ...{ engine: 'v86', dirtyTracking: '', protection: 'mirror' },
    captureDriver: { name: '', why: '' },
    ...{ pauseMs: NO_FIGURE, findMs: NO_FIGURE, copyMs: NO_FIGURE, commitMs: NO_FIGURE },
    ...{ epochMs: 0, dirtyPages: 0, bytesPerEpoch: 0, ratio: 0, guestClockLagMs: 0, workDone: 0 },
    ...{ gateHeldBytes: 0, auditedEpochs: 0, missedPages: 0, serialOffset: 0 },
    ...{ arriving: null, lastTakeover: null, heartbeats: [], warnings: [] },
  };
}
