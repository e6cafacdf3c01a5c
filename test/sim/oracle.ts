/** The history as seen from outside: what was released may never be contradicted. */
export class Oracle {
  readonly violations: string[] = [];
  /** Outputs seen, by life of the VM. */
  private readonly lives = new Map<number, number[]>();

  released(life: number, index: number, value: number): void {
    const seen = this.seen(life);
    if (seen[index] === undefined) seen[index] = value;
    else if (seen[index] !== value)
      this.violations.push(`output ${index} was ${seen[index]} and is now ${value}`);
  }

  /** Whoever owns the VM in the end holds everything of its life that was ever seen. */
  owner(life: number, state: readonly number[]): void {
    const lost = this.seen(life).findIndex((value, index) => state[index] !== value);
    if (lost >= 0) this.violations.push(`the last owner lacks output ${lost}`);
  }

  seen(life: number): number[] {
    const known = this.lives.get(life) ?? [];
    this.lives.set(life, known);
    return known;
  }
}
