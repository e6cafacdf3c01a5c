/** The history as seen from outside: what was released may never be contradicted. */
import type { Outputs } from './outputs.js';

export class Oracle {
  readonly violations: string[] = [];
  /** Outputs seen, by life of the VM. */
  private readonly lives = new Map<number, number[]>();
  /** Lives that were lost with their memory; of an acked epoch, output may still be on its way. */
  private readonly lost = new Set<number>();
  private readonly stopped = new Set<number>();

  released(life: number, index: number, value: number, acked: boolean): void {
    const seen = this.seen(life);
    if (index > seen.length)
      this.violations.push(`output ${index} came while ${seen.length} was never seen`);
    else if (index < seen.length) {
      if (seen[index] === value) return;
      this.violations.push(`output ${index} was ${seen[index]} and is now ${value}`);
    } else if (this.stopped.has(life) || (this.lost.has(life) && !acked))
      this.violations.push(`output ${index} came after its VM had ended`);
    else seen.push(value);
  }

  /**
   * A person forced a standby to go on while its owner may have gone on too: another life, with
   * what was surely seen of the older. Both may be heard until the hosts meet.
   */
  forks(from: number, life: number, seenCount: number): void {
    this.lives.set(life, this.seen(from).slice(0, seenCount));
  }

  /** A new life: nobody may run an older one any more. */
  begins(life: number): void {
    for (const older of this.lives.keys()) if (older !== life) this.lost.add(older);
  }

  /** `stop` was answered with success: this life is over. */
  ended(life: number): void {
    this.stopped.add(life);
  }

  /** Whoever owns the VM in the end holds everything of its life that was ever seen. */
  owner(life: number, state: Outputs): void {
    const lost = this.seen(life).findIndex((value, index) => state.at(index) !== value);
    if (lost >= 0) this.violations.push(`the last owner lacks output ${lost}`);
  }

  seen(life: number): number[] {
    const known = this.lives.get(life) ?? [];
    this.lives.set(life, known);
    return known;
  }
}
