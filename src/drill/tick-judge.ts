/**
 * Judges the serial lines of the built-in guest: every tick once, in order, with a sum that chains
 * over all before it, and no line that says the guest found its memory damaged.
 */

const OFFSET = 0;
const PRIME = 16_777_619;
const FAULTS_KEPT = 20;
const LINE_MAX = 1024;

/** FNV-1a over `value`'s four bytes, as `chain` in `src/guest/builtin/main.c` does it. */
function chain(sum: number, value: number): number {
  let next = sum;
  for (let shift = 0; shift < 32; shift += 8) {
    next = Math.imul(next ^ ((value >>> shift) & 255), PRIME) >>> 0;
  }
  return next;
}

export class TickJudge {
  ticks = 0;
  /** Lines by which the guest reports damage. */
  readonly faultLines: string[] = [];
  /** Ticks that came twice, out of order, or not at all, and sums that do not follow. */
  readonly broken: string[] = [];
  faultCount = 0;
  brokenCount = 0;
  /** Units of work of the last tick, with `load=spin`. */
  work = 0;
  /** Guest time of the last tick. */
  timeMs = 0;
  #sum = OFFSET;
  #last = 0;
  #rest = '';
  #decoder = new TextDecoder();

  /** Takes bytes of the serial stream, from its start, cut anywhere. */
  push(bytes: Uint8Array): void {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split('\n');
    this.#rest = lines.pop()!.slice(-LINE_MAX);
    for (const line of lines) this.#onLine(line);
  }

  #onLine(line: string): void {
    if (line.startsWith('FAULT')) {
      this.faultCount += 1;
      if (this.faultLines.length < FAULTS_KEPT) this.faultLines.push(line);
      return;
    }
    if (!line.startsWith('tick ')) return;
    const tick = /^tick n=(\d+) t=(\d+) sum=([0-9a-f]{8})(?: work=(\d+))?$/.exec(line);
    if (!tick) {
      this.#report(`not a tick: ${line}`);
      return;
    }
    const n = Number(tick[1]);
    const timeMs = Number(tick[2]);
    const sum = Number.parseInt(tick[3], 16);
    if (n !== this.#last + 1) this.#report(`tick ${n} after ${this.#last}`);
    else if (chain(chain(this.#sum, n), timeMs) !== sum) this.#report(`wrong sum: ${line}`);
    if (timeMs < this.timeMs) this.#report(`time went back to ${timeMs} from ${this.timeMs}`);
    this.ticks += 1;
    this.#last = n;
    this.#sum = sum;
    this.timeMs = timeMs;
    if (tick[4] !== undefined) this.work = Number(tick[4]);
  }

  #report(what: string): void {
    this.brokenCount += 1;
    if (this.broken.length < FAULTS_KEPT) this.broken.push(what);
  }
}
