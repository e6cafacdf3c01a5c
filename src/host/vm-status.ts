/**
 * The status of one VM as one of its two processes sees it: the fields of `mirror status --json`.
 */
import type { CoreStatus } from '../core/events.js';
import type { Percentiles } from '../checkpoint/figures.js';
import { unsafeDisksWarning } from './local-disks.js';
import type { PartialEpoch, TakeoverFigures, VmProcess } from './vm-member.js';

const NO_FIGURE: Percentiles = { p50: 0, p99: 0, max: 0 };

/** A path on which this process hears its peer. */
export interface Heartbeat {
  readonly path: 'interconnect';
  /** How long it has been silent. */
  readonly silentMs: number;
}

export interface VmStatus extends CoreStatus {
  readonly name: string;
  readonly vmUuid: string;
  readonly host: string;
  readonly incarnation: string;
  readonly pid: number;
  readonly engine: string;
  readonly dirtyTracking: string;
  /** How captures are made, and why so. */
  readonly captureDriver: { readonly name: string; readonly why: string };
  readonly protection: string;
  readonly pauseMs: Percentiles;
  readonly findMs: Percentiles;
  readonly copyMs: Percentiles;
  readonly commitMs: Percentiles;
  readonly epochMs: number;
  readonly dirtyPages: number;
  readonly bytesPerEpoch: number;
  readonly ratio: number;
  readonly guestClockLagMs: number;
  readonly workDone: number;
  readonly gateHeldBytes: number;
  readonly auditedEpochs: number;
  readonly missedPages: number;
  readonly serialOffset: number;
  readonly arriving: PartialEpoch | null;
  readonly lastTakeover: TakeoverFigures | null;
  readonly heartbeats: Heartbeat[];
  readonly warnings: { code: string; text: string }[];
}

export function vmStatus(vm: VmProcess): VmStatus {
  const primary = vm.primary;
  const machine = primary?.machine ?? vm.replica?.machine ?? null;
  const figures = primary?.loop?.figures;
  return {
    ...vm.driver.status(),
    name: vm.init.vmName,
    vmUuid: vm.init.vmUuid,
    host: vm.init.host.name,
    incarnation: vm.incarnation,
    pid: process.pid,
    engine: machine?.info.engine ?? 'v86',
    dirtyTracking: machine?.info.dirtyTracking ?? 'patched',
    captureDriver: machine?.info.captureDriver ?? { name: 'in-process', why: '' },
    protection: 'mirror',
    pauseMs: figures?.pauseMs.percentiles() ?? NO_FIGURE,
    findMs: figures?.findMs.percentiles() ?? NO_FIGURE,
    copyMs: figures?.copyMs.percentiles() ?? NO_FIGURE,
    commitMs: figures?.commitMs.percentiles() ?? NO_FIGURE,
    epochMs: primary?.pacer.epochMs ?? 0,
    dirtyPages: figures?.dirtyPages ?? 0,
    bytesPerEpoch: figures?.bytesPerEpoch ?? 0,
    ratio: figures?.ratio ?? 0,
    guestClockLagMs: primary?.machine.guestClockLagMs() ?? 0,
    workDone: primary?.machine.workDone() ?? 0,
    gateHeldBytes: primary?.gate.heldBytes ?? 0,
    auditedEpochs: figures?.auditedEpochs ?? 0,
    missedPages: figures?.missedPages ?? 0,
    serialOffset: (vm.replica?.outputs.serial ?? vm.serial).end,
    arriving: vm.replica ? vm.arriving : null,
    lastTakeover: vm.lastTakeover,
    heartbeats: vm.silencesMs().map((silentMs) => ({ path: 'interconnect', silentMs })),
    warnings: [...unsafeDisksWarning(vm.source.known), ...vm.warnings],
  };
}
