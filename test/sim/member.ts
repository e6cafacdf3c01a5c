/** One VM process of a simulated world: a real core around a modelled machine, gate and replica. */
import type { Core } from '../../src/core/events.js';
import { Outputs } from './outputs.js';

/** What one captured epoch holds. */
export interface Cut {
  readonly epoch: number;
  readonly generation: number;
  readonly base: boolean;
  readonly complete: boolean;
  readonly partCount: number;
  readonly state: Outputs;
  /** Whose memory it is, and under which sync: deltas fit only what they were made against. */
  readonly origin: string;
}

/** One part on its way. */
export interface Payload {
  readonly cut: Cut;
  readonly part: number;
  readonly bad: boolean;
}

export interface Image {
  readonly origin: string;
  readonly epoch: number;
  readonly complete: boolean;
  readonly state: Outputs;
}

export class Member {
  readonly core: Core;
  readonly host: string;
  readonly incarnation: string;
  /** A cold boot, reported as loss of memory, begins a new life of the VM. */
  life: number;
  alive = true;
  frozenUntilMs = 0;
  wakeAtMs = 0;
  state = new Outputs();
  running = false;
  gateOpen = false;
  gateFull = false;
  releasedCount = 0;
  releasedThrough = 0;
  syncs = 0;
  swept = 0;
  readonly cuts = new Map<number, Cut>();
  image: Image | null = null;
  staged: Payload[] = [];
  /** Output up to here has left the old owner's gate and is kept no more. */
  forgottenCount = 0;
  private readonly outputCounts = new Map<number, number>();

  constructor(core: Core, host: string, incarnation: string, life: number) {
    this.core = core;
    this.host = host;
    this.incarnation = incarnation;
    this.life = life;
  }

  get isPrimary(): boolean {
    return this.core.status().role === 'primary';
  }

  get protects(): boolean {
    return this.alive && this.isPrimary && this.core.status().state === 'protected';
  }

  cut(epoch: number, generation: number, base: boolean, final: boolean, partCount: number): Cut {
    if (base) {
      this.syncs += 1;
      this.swept = 0;
    }
    this.swept = final ? 3 : Math.min(2, this.swept + 1);
    const origin = `${this.incarnation}/${this.syncs}`;
    const complete = this.swept === 3;
    const cut = { epoch, generation, base, complete, partCount, state: this.state, origin };
    this.cuts.set(epoch, cut);
    return cut;
  }

  /** What decoding and hashing would find. */
  stagedIsGood(epoch: number): boolean {
    const [first] = this.staged;
    if (!first || this.staged.length !== first.cut.partCount) return false;
    return this.staged.every(
      ({ cut, part, bad }, index) =>
        !bad && cut === first.cut && cut.epoch === epoch && part === index && this.fits(cut),
    );
  }

  private fits(cut: Cut): boolean {
    if (cut.base) return true;
    return this.image?.origin === cut.origin && this.image.epoch === cut.epoch - 1;
  }

  /** Applies what is staged as it is: only a core that verified it first gets a good image. */
  commit(epoch: number): void {
    const good = this.stagedIsGood(epoch);
    const [first] = this.staged;
    if (!first) return;
    const { origin, complete, state } = first.cut;
    const whole = good ? state : state.damaged();
    const covered = complete || (this.image?.complete === true && !first.cut.base);
    this.image = { origin, epoch, complete: covered, state: whole };
    this.outputCounts.set(epoch, whole.length);
    this.staged = [];
  }

  outputReleased(epoch: number): void {
    for (const [kept, count] of this.outputCounts) {
      if (kept > epoch) continue;
      this.forgottenCount = Math.max(this.forgottenCount, count);
      this.outputCounts.delete(kept);
    }
  }

  promote(): void {
    const { image } = this;
    if (!image) throw new Error('promoted without an image');
    this.state = image.complete ? image.state : image.state.damaged();
    this.releasedCount = this.forgottenCount;
    this.gateOpen = false;
  }

  boot(life: number): void {
    this.life = life;
    this.state = new Outputs();
    this.releasedCount = 0;
    this.gateOpen = false;
  }
}
