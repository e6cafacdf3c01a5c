/**
 * Says when the next epoch is due. `auto` keeps pauses and encoding to a share of the time, within
 * bounds: a guest that dirties much gets longer epochs, a quiet one gets short ones and low
 * latency.
 */

export interface PacerOptions {
  /** `null`: choose by what epochs cost. */
  readonly fixedMs: number | null;
}

const EPOCH_MS_MIN = 10;
const EPOCH_MS_MAX = 100;
/** The VM should stand still for at most this share of the time. */
const PAUSE_SHARE = 0.06;
const SMOOTHING = 0.1;

export class Pacer {
  private epochMs_: number;
  private readonly fixed: boolean;
  private timer: NodeJS.Timeout | null = null;
  private readonly onDue: () => void;

  constructor(options: PacerOptions, onDue: () => void) {
    this.fixed = options.fixedMs !== null;
    this.epochMs_ = options.fixedMs ?? 25;
    this.onDue = onDue;
  }

  get epochMs(): number {
    return this.epochMs_;
  }

  start(): void {
    if (this.timer) return;
    this.arm(process.hrtime.bigint());
  }

  stop(): void {
    if (this.timer) clearTimeout(this.timer);
    this.timer = null;
  }

  /** One epoch cost this much: the pause, and the time from capture to acknowledgement. */
  observe(pauseMs: number, commitMs: number): void {
    if (this.fixed) return;
    const wanted = Math.max(pauseMs / PAUSE_SHARE, commitMs);
    const bounded = Math.min(EPOCH_MS_MAX, Math.max(EPOCH_MS_MIN, wanted));
    this.epochMs_ += (bounded - this.epochMs_) * SMOOTHING;
  }

  /** Ticks on a grid, so that a late timer does not stretch the epochs that follow. */
  private arm(lastDue: bigint): void {
    const now = process.hrtime.bigint();
    const due = lastDue + BigInt(Math.round(this.epochMs_ * 1e6));
    const waitMs = Math.max(0, Number(due - now) / 1e6);
    this.timer = setTimeout(() => {
      this.arm(due < now ? now : due);
      this.onDue();
    }, waitMs);
  }
}
