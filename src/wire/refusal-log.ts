/**
 * Refusals for the log: each once for its source and reason, and how often it came again only when
 * its time is over. What fills the log cannot fill memory either.
 */
const QUIET_MS = 60_000;
const ENTRIES_MAX = 256;

interface Entry {
  readonly sinceMs: number;
  again: number;
}

export class RefusalLog {
  private readonly say: (text: string) => void;
  private readonly entries = new Map<string, Entry>();

  constructor(say: (text: string) => void) {
    this.say = say;
  }

  note(source: string, code: string, text: string): void {
    const nowMs = performance.now();
    this.forgetOld(nowMs);
    const key = `${source} ${code}`;
    const entry = this.entries.get(key);
    if (entry) {
      entry.again += 1;
      return;
    }
    if (this.entries.size >= ENTRIES_MAX) return;
    this.entries.set(key, { sinceMs: nowMs, again: 0 });
    this.say(`refused ${source}: ${text}`);
    if (this.entries.size === ENTRIES_MAX)
      this.say('refusals come from too many places: no more of them are told for a minute');
  }

  private forgetOld(nowMs: number): void {
    // In the order in which they came.
    for (const [key, { sinceMs, again }] of this.entries) {
      if (nowMs - sinceMs < QUIET_MS) return;
      this.entries.delete(key);
      if (again > 0) this.say(`refused ${again} more times in a minute: ${key}`);
    }
  }
}
