/**
 * Runs the guest in slices of about 1 ms on the event loop of the process. Between slices other
 * work gets its turn, which also lets freshly compiled guest code in; while the guest halts, the
 * loop sleeps until the next timer of the guest or until `wake`.
 */

/** Runs one slice; returns for how many ms the guest may sleep, or `null` to leave the loop. */
export type Slice = () => number | null;

const SLEEP_MS_MAX = 100;

export class RunLoop {
  private readonly slice: Slice;
  private wanted = false;
  private inSlice = false;
  private woken = false;
  private timer: NodeJS.Timeout | null = null;
  private immediate: NodeJS.Immediate | null = null;
  private onStill: (() => void)[] = [];

  constructor(slice: Slice) {
    this.slice = slice;
  }

  start(): void {
    if (this.wanted) throw new Error('the run loop runs already');
    this.wanted = true;
    if (!this.inSlice) this.again(0);
  }

  /** Settles at the next slice boundary: at once, unless called from within a slice. */
  stop(): Promise<void> {
    this.wanted = false;
    this.cancel();
    if (!this.inSlice) return Promise.resolve();
    return new Promise((resolve) => this.onStill.push(resolve));
  }

  /** Something happened that the guest may be waiting for. */
  wake(): void {
    this.woken = true;
    if (this.timer === null) return;
    this.cancel();
    this.again(0);
  }

  private readonly step = (): void => {
    this.cancel();
    this.woken = false;
    this.inSlice = true;
    let sleepMs: number | null;
    try {
      sleepMs = this.slice();
    } finally {
      this.inSlice = false;
    }
    if (sleepMs === null) this.wanted = false;
    for (const resolve of this.onStill.splice(0)) resolve();
    if (this.wanted && sleepMs !== null) this.again(this.woken ? 0 : sleepMs);
  };

  private again(sleepMs: number): void {
    if (sleepMs < 1) this.immediate = setImmediate(this.step);
    else this.timer = setTimeout(this.step, Math.min(SLEEP_MS_MAX, Math.floor(sleepMs)));
  }

  private cancel(): void {
    if (this.timer) clearTimeout(this.timer);
    if (this.immediate) clearImmediate(this.immediate);
    this.timer = null;
    this.immediate = null;
  }
}
