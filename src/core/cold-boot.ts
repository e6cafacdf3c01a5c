/**
 * DESIGN rule 7: a VM is booted anew only if no image of it is left alive; by its owner, or by
 * another host on a person's word that the owner is gone for good.
 */
import type { VmRecord } from './record.js';

export type ColdBootStep =
  /** Ask the daemon of `host` whether this process lives. */
  | { readonly do: 'probe'; readonly host: string; readonly incarnation: string }
  /** Nobody can say yet: read the record again later. */
  | { readonly do: 'wait' }
  /** Not for this host to boot. */
  | { readonly do: 'leave'; readonly reason: string }
  | { readonly do: 'boot'; readonly record: VmRecord };

export class ColdBoot {
  private readonly host: string;
  /** Over the record of which generation a person gave the word; `null`: nobody did. */
  private readonly forcedOver: number | null;
  private record: VmRecord | null = null;
  private asking: 'owner' | 'peer' = 'owner';

  constructor(host: string, forcedOver: number | null) {
    this.host = host;
    this.forcedOver = forcedOver;
  }

  private get forced(): boolean {
    return this.forcedOver !== null;
  }

  consider(record: VmRecord | null): ColdBootStep {
    if (!record || record.mode === 'stopped')
      return { do: 'leave', reason: 'the record does not say that it runs' };
    if (this.forced && record.generation !== this.forcedOver)
      return { do: 'leave', reason: `host ${record.owner} has come back since: look again` };
    if (record.owner !== this.host && !this.forced)
      return { do: 'leave', reason: `host ${record.owner} owns it` };
    this.record = record;
    // Even of this host: a standby may have been promoted while we waited for the arbiter.
    this.asking = 'owner';
    return { do: 'probe', host: record.owner, incarnation: record.ownerIncarnation };
  }

  /** `attempted`: the highest generation that this host ever proposed. */
  heard(alive: boolean | 'unknown', attempted: number): ColdBootStep {
    const { record, asking } = this;
    if (!record) return { do: 'wait' };
    if (alive === true && (asking === 'owner' || this.forced))
      return { do: 'leave', reason: `its ${asking} is alive: use that one` };
    if (alive === true || (alive === 'unknown' && !this.forced)) return { do: 'wait' };
    const maybePaired = record.mode === 'paired' || attempted > record.generation;
    if (asking === 'owner' && maybePaired) {
      this.asking = 'peer';
      return { do: 'probe', host: record.peer, incarnation: record.peerIncarnation };
    }
    return { do: 'boot', record };
  }
}
