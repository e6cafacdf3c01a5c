/** The arbiter of a simulated world: one record, compare-and-swap, and the ways it can fail. */
import type { ArbiterReply, Effect } from '../../src/core/events.js';
import { mayFollow, type VmRecord } from '../../src/core/record.js';

export type ArbiterEffect = Extract<Effect, { type: 'arbiter-read' | 'arbiter-cas' }>;

export class SimArbiter {
  record: VmRecord | null = null;
  up = true;
  /** Raised with each new VM uuid: requests for an older one find nothing. */
  era = 0;
  /** The highest generation that ever stood here. */
  newestGeneration = 0;
  private clearedBelow = 0;
  private past: (VmRecord | null)[] = [];

  /** What stood here before the last change. */
  get before(): VmRecord | null {
    return this.past.at(-1) ?? null;
  }

  carryOut(effect: ArbiterEffect, era: number): ArbiterReply {
    if (era !== this.era) return { outcome: 'conflict', record: null };
    if (effect.type === 'arbiter-read') return { outcome: 'ok', record: this.record };
    if (!mayFollow(this.record, effect.expectRevision, effect.proposal))
      return { outcome: 'conflict', record: this.record };
    this.put({ ...effect.proposal, revision: effect.expectRevision + 1 });
    return { outcome: 'ok', record: this.record };
  }

  wipe(): void {
    this.record = null;
  }

  renew(): void {
    this.era += 1;
    this.record = null;
    this.past = [];
    this.newestGeneration = 0;
    this.clearedBelow = 0;
  }

  /** A claim of a revision on shared storage: won if it is new, or if its place is free again. */
  claim(record: VmRecord, era: number): boolean {
    if (era !== this.era) return false;
    const newest = this.record?.revision ?? 0;
    if (record.revision <= newest) return record.revision < this.clearedBelow;
    this.put(record);
    return true;
  }

  /** Two hosts without an arbiter: what stands on their disks. */
  stands(record: VmRecord | null): void {
    if (record && record !== this.record) this.put(record);
  }

  /** A device has decided. */
  decided(record: VmRecord): void {
    if (record.revision > (this.record?.revision ?? 0)) this.put(record);
  }

  clear(below: number): void {
    this.clearedBelow = Math.max(this.clearedBelow, below);
  }

  private put(record: VmRecord): void {
    this.past.push(this.record);
    this.record = record;
    this.newestGeneration = Math.max(this.newestGeneration, record.generation);
  }

  /** Back to an earlier record, as from a backup. */
  restore(steps: number): void {
    const record = this.past[this.past.length - 1 - steps];
    if (record !== undefined) this.record = record;
  }
}
