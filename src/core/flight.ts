/** The epochs that are captured and not yet acknowledged. */
import { MirrorError } from './errors.js';

export class Flight {
  /** Last epoch captured, or being captured. */
  epoch: number;
  ackedEpoch: number;
  releasedThrough: number;
  capturing = false;
  private readonly capturedAtMs = new Map<number, number>();

  constructor(epoch: number) {
    this.epoch = epoch;
    this.ackedEpoch = epoch;
    this.releasedThrough = epoch;
  }

  get size(): number {
    return this.capturedAtMs.size;
  }

  begin(): number {
    if (this.capturing) throw new MirrorError('CORE_BUG', 'two captures at once');
    this.capturing = true;
    this.epoch += 1;
    return this.epoch;
  }

  captured(epoch: number, nowMs: number): void {
    if (!this.capturing || epoch !== this.epoch)
      throw new MirrorError('CORE_BUG', `capture of epoch ${epoch} was not asked for`);
    this.capturing = false;
    this.capturedAtMs.set(epoch, nowMs);
  }

  failed(): void {
    this.capturing = false;
  }

  /** False for an epoch that is not in flight: an old ack, or one for what was never sent. */
  acked(epoch: number): boolean {
    if (!this.capturedAtMs.has(epoch)) return false;
    for (const kept of [...this.capturedAtMs.keys()])
      if (kept <= epoch) this.capturedAtMs.delete(kept);
    this.ackedEpoch = epoch;
    return true;
  }

  from(epoch: number): number[] {
    return [...this.capturedAtMs.keys()].filter((kept) => kept >= epoch);
  }

  /** Nothing in flight will be acknowledged any more. */
  abandon(): void {
    this.capturedAtMs.clear();
  }

  get oldestAtMs(): number | null {
    const [oldest] = this.capturedAtMs.values();
    return oldest ?? null;
  }
}
