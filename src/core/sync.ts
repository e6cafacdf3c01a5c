/**
 * The making of a pair, from the first word to the record: the stages that a new standby goes
 * through while the VM runs on. The gate closes before the capture that the pair will rest on
 * (DESIGN rule 5).
 */
import { MirrorError } from './errors.js';
import type { SessionId } from './events.js';

export type SyncStage =
  /** `hello` is sent. */
  | 'greeting'
  /** Epochs flow, the gate is open. */
  | 'streaming'
  /** All but a small rest is captured: the next capture is the final one. */
  | 'ready'
  /** The gate is closed and the final epoch captured, its ack awaited. */
  | 'final'
  /** The final epoch is durable there; the CAS is under way and no epoch is cut. */
  | 'pairing';

const NEXT: Record<SyncStage, SyncStage | null> = {
  greeting: 'streaming',
  streaming: 'ready',
  ready: 'final',
  final: 'pairing',
  pairing: null,
};

export class Sync {
  readonly session: SessionId;
  readonly startedAtMs: number;
  peer = { host: '', incarnation: '' };
  finalEpoch = 0;
  started = false;
  private stage_: SyncStage = 'greeting';

  constructor(session: SessionId, nowMs: number) {
    this.session = session;
    this.startedAtMs = nowMs;
  }

  get stage(): SyncStage {
    return this.stage_;
  }

  advance(to: SyncStage): void {
    if (NEXT[this.stage_] !== to)
      throw new MirrorError('CORE_BUG', `a sync cannot go from ${this.stage_} to ${to}`);
    this.stage_ = to;
  }
}
