/**
 * The whole state of a simulated VM: the outputs that it has made. Copies share one growing log, so
 * that a capture costs nothing; a copy that goes on by itself takes a log of its own.
 */
export class Outputs {
  private readonly log: number[];
  readonly length: number;

  constructor(log: number[] = [], length = log.length) {
    this.log = log;
    this.length = length;
  }

  at(index: number): number | undefined {
    return index < this.length ? this.log[index] : undefined;
  }

  /** Only the newest copy may grow in place. */
  with(value: number): Outputs {
    const log = this.log.length === this.length ? this.log : this.log.slice(0, this.length);
    log.push(value);
    return new Outputs(log);
  }

  /** What memory looks like that was put together from the wrong pieces. */
  damaged(): Outputs {
    return new Outputs(this.log.slice(0, this.length).map((value) => value ^ 1));
  }
}
