/** One host of a simulated world: its clock, its disk and the notes on it. */
import type { HostNote } from '../../src/core/record.js';
import type { Schedule } from './schedule.js';

export class SimHost {
  readonly name: string;
  downUntilMs = 0;
  /** How long a note takes to its disk, at most. */
  noteMsMax = 4;
  /** Acks from here get lost while all else passes. */
  acksStuck = false;
  private readonly schedule: Schedule;
  private rate = 1;
  private localAtMs = 0;
  private sinceMs = 0;
  /** Raised with each loss of power. */
  boots = 0;
  private notes = new Map<string, HostNote>();

  constructor(name: string, schedule: Schedule) {
    this.name = name;
    this.schedule = schedule;
  }

  get up(): boolean {
    return this.schedule.nowMs >= this.downUntilMs;
  }

  get localMs(): number {
    return this.localAtMs + (this.schedule.nowMs - this.sinceMs) * this.rate;
  }

  setRate(rate: number): void {
    this.localAtMs = this.localMs;
    this.sinceMs = this.schedule.nowMs;
    this.rate = rate;
  }

  /** World time until this host's clock shows `atMs`. */
  waitMs(atMs: number): number {
    return Math.max(1, (atMs - this.localMs) / this.rate);
  }

  crash(downMs: number): void {
    this.boots += 1;
    this.downUntilMs = this.schedule.nowMs + downMs;
  }

  /** A note reaches the disk some time before it is said to be there, or not at all. */
  save(incarnation: string, note: HostNote, tookMs: number, saved: () => void): void {
    const { boots } = this;
    this.schedule.at(tookMs, () => {
      if (boots !== this.boots) return;
      this.notes.set(incarnation, note);
      this.schedule.at(1, saved);
    });
  }

  note(): HostNote | null {
    const notes = [...this.notes.values()];
    if (notes.length === 0) return null;
    return {
      vmUuid: notes[0].vmUuid,
      generationSeen: Math.max(...notes.map((note) => note.generationSeen)),
      generationAttempted: Math.max(...notes.map((note) => note.generationAttempted)),
    };
  }

  /** The highest generation that a process other than this one may have got. */
  attemptedByOthers(incarnation: string): number {
    let highest = 0;
    for (const [one, { generationSeen, generationAttempted }] of this.notes)
      if (one !== incarnation) highest = Math.max(highest, generationSeen, generationAttempted);
    return highest;
  }

  /** A person clears what this host remembers of the VM. */
  forget(): void {
    this.notes = new Map();
  }
}
