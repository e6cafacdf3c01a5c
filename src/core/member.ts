/**
 * A VM process's core through its life: a primary, or a secondary that becomes one by a takeover.
 */
import type { Core, CoreConfig, CoreStatus, Effect, Event } from './events.js';
import { Primary } from './primary.js';
import type { HostNote } from './record.js';
import { Secondary } from './secondary.js';

export function createPrimary(
  config: CoreConfig,
  note: HostNote | null,
  options: { start: 'create' | 'cold-boot'; peer: string | null; forcedOver?: number | null },
): Core {
  return new Primary(config, note, options);
}

export function createSecondary(config: CoreConfig, note: HostNote | null): Core {
  return new Member(config, new Secondary(config, note));
}

class Member implements Core {
  private readonly config: CoreConfig;
  private readonly secondary: Secondary;
  private primary: Primary | null = null;

  constructor(config: CoreConfig, secondary: Secondary) {
    this.config = config;
    this.secondary = secondary;
  }

  step(event: Event, nowMs: number): Effect[] {
    if (this.primary) return this.primary.step(event, nowMs);
    const effects = this.secondary.step(event, nowMs);
    const { promotion } = this.secondary;
    if (promotion) {
      const { record, epoch, peerAddress, note } = promotion;
      const start = { start: 'promoted', peer: peerAddress, record, epoch } as const;
      this.primary = new Primary(this.config, note, start);
    }
    return effects;
  }

  status(): CoreStatus {
    return this.primary ? this.primary.status() : this.secondary.status();
  }
}
