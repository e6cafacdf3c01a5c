/**
 * Guest time. v86 asks `performance.now` and `Date.now` of the whole process; every machine needs
 * a clock of its own, which stands still while the machine is paused. So v86 is given hooks that
 * answer with the clock of the machine being executed, and with real time outside of any
 * execution.
 *
 * Time lost in pauses is given back by running faster: by 10 % while the guest lags at most 30
 * ms, else at double speed. The clock never jumps and never goes back. After a takeover the lag
 * is what the machine's wall clock misses, at most a minute; what is beyond that is lost to the
 * guest.
 */

const SLEW_RATE = 0.1;
const CATCH_UP_RATE = 1;
const CATCH_UP_ABOVE_LAG_MS = 30;
const RESTORE_LAG_MS_MAX = 60_000;

const realNowMs = performance.now.bind(performance);
const realDateMs = Date.now.bind(Date);

/** What of a clock travels in the device state. */
export interface ClockState {
  readonly guestMs: number;
  /** Wall clock of the guest minus `guestMs`. */
  readonly wallOffsetMs: number;
}

export class GuestClock {
  private guestMs: number;
  private wallOffsetMs: number;
  private lagMs_ = 0;
  private running = false;
  /** Real time of the last change of the fields above. */
  private anchorMs: number;

  constructor() {
    this.anchorMs = realNowMs();
    this.guestMs = this.anchorMs;
    this.wallOffsetMs = realDateMs() - this.guestMs;
  }

  nowMs(): number {
    const elapsedMs = realNowMs() - this.anchorMs;
    return this.running ? this.guestMs + elapsedMs + this.caughtUpMs(elapsedMs) : this.guestMs;
  }

  wallMs(): number {
    return Math.floor(this.nowMs() + this.wallOffsetMs);
  }

  lagMs(): number {
    const elapsedMs = realNowMs() - this.anchorMs;
    return this.running ? this.lagMs_ - this.caughtUpMs(elapsedMs) : this.lagMs_ + elapsedMs;
  }

  start(): void {
    this.setAnchor();
    this.running = true;
  }

  freeze(): void {
    this.setAnchor();
    this.running = false;
  }

  /** A machine at its first instruction: guest time is real time. */
  reset(): void {
    this.anchorMs = realNowMs();
    this.guestMs = this.anchorMs;
    this.wallOffsetMs = realDateMs() - this.guestMs;
    this.lagMs_ = 0;
  }

  state(): ClockState {
    return { guestMs: this.nowMs(), wallOffsetMs: this.wallOffsetMs };
  }

  /** Goes on from the clock of another machine, most likely one of another host. */
  restore(state: ClockState): void {
    if (this.running) throw new Error('a running clock cannot be restored');
    this.guestMs = state.guestMs;
    this.wallOffsetMs = state.wallOffsetMs;
    const missedMs = realDateMs() - (state.guestMs + state.wallOffsetMs);
    this.lagMs_ = Math.min(RESTORE_LAG_MS_MAX, Math.max(0, missedMs));
    this.anchorMs = realNowMs();
  }

  private setAnchor(): void {
    const nowMs = realNowMs();
    const elapsedMs = nowMs - this.anchorMs;
    if (this.running) {
      const caughtUpMs = this.caughtUpMs(elapsedMs);
      this.guestMs += elapsedMs + caughtUpMs;
      this.lagMs_ -= caughtUpMs;
    } else {
      this.lagMs_ += elapsedMs;
    }
    this.anchorMs = nowMs;
  }

  /** How much of the lag is given back within `elapsedMs` of running. */
  private caughtUpMs(elapsedMs: number): number {
    const fastMs = Math.max(0, this.lagMs_ - CATCH_UP_ABOVE_LAG_MS);
    const fastForMs = Math.min(elapsedMs, fastMs / CATCH_UP_RATE);
    const slowMs = this.lagMs_ - fastMs;
    const givenSlowMs = Math.min(slowMs, (elapsedMs - fastForMs) * SLEW_RATE);
    return fastForMs * CATCH_UP_RATE + givenSlowMs;
  }
}

let executing: GuestClock | null = null;

/** Runs `work`, a synchronous entry into v86, on the time of `clock`. */
export function onClock<T>(clock: GuestClock, work: () => T): T {
  const outer = executing;
  executing = clock;
  try {
    return work();
  } finally {
    executing = outer;
  }
}

function dispatchNow(): number {
  return executing ? executing.nowMs() : realNowMs();
}

let installed = false;

/**
 * Loads a module that binds `performance.now` while it is evaluated, and hands it the dispatching
 * one. `performance` is as before once the module is loaded; `Date.now` keeps dispatching, since
 * v86 looks it up at each call.
 */
export async function importOnGuestTime<T>(load: () => Promise<T>): Promise<T> {
  if (!installed) Date.now = () => (executing ? executing.wallMs() : realDateMs());
  installed = true;
  Object.defineProperty(performance, 'now', { value: dispatchNow, configurable: true });
  try {
    return await load();
  } finally {
    Reflect.deleteProperty(performance, 'now');
  }
}
