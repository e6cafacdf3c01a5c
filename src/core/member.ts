/**
 * A VM process's core through its life: a claimant or a secondary first, and a primary once the
 * record names it.
 */
import { Claimant, type ClaimantStart } from './claimant.js';
import type { Core, CoreConfig, CoreStatus, Effect, Event } from './events.js';
import { Primary, type PrimaryStart } from './primary.js';
import type { HostNote } from './record.js';
import { Secondary } from './secondary.js';

export function createPrimary(
  config: CoreConfig,
  note: HostNote | null,
  start: ClaimantStart,
): Core {
  const claimant = new Claimant(config, note, start);
  return new Member(config, claimant, () => claimant.claim);
}

export function createSecondary(config: CoreConfig, note: HostNote | null): Core {
  const secondary = new Secondary(config, note);
  return new Member(config, secondary, () => secondary.promotion);
}

class Member implements Core {
  private readonly config: CoreConfig;
  private readonly first: Core;
  /** What the primary starts with, once `first` has won the record. */
  private readonly won: () => PrimaryStart | null;
  private primary: Primary | null = null;

  constructor(config: CoreConfig, first: Core, won: () => PrimaryStart | null) {
    this.config = config;
    this.first = first;
    this.won = won;
  }

  step(event: Event, nowMs: number): Effect[] {
    if (this.primary) return this.primary.step(event, nowMs);
    const effects = this.first.step(event, nowMs);
    const start = this.won();
    if (start) this.primary = new Primary(this.config, start);
    return effects;
  }

  status(): CoreStatus {
    return this.primary ? this.primary.status() : this.first.status();
  }
}
