/**
 * The operator of a simulated world. Comes once the faults are over, looks at both hosts, and does
 * what the documentation says: what Mirror leaves to a person, and nothing else.
 */
import type { Member } from './member.js';
import type { World } from './world.js';

export class Person {
  private readonly world: World;

  constructor(world: World) {
    this.world = world;
  }

  /** One look, and at most one act. */
  look(): void {
    const { world } = this;
    const { record } = world.arbiter;
    const holder = this.newestImage();
    const forgotten = this.arbiterForgot();
    // A process that refuses to be vouched for has its reasons, and says them.
    const refused = holder && world.vouched.has(holder.incarnation);
    if (forgotten && holder && !refused) return this.vouch(holder);
    if (forgotten) return this.startAfresh();
    if (record?.mode === 'stopped' && world.members.length === 0) return world.create('a');
    const owner = world.owner();
    if (owner) this.protect(owner);
  }

  protect(owner: Member): void {
    const { world } = this;
    const { state } = owner.core.status();
    const peer = owner.host === 'a' ? 'b' : 'a';
    // A VM that its policy stalled goes on alone only when a person says so.
    if (world.stalls && state === 'waiting-arbiter')
      world.dispatch(owner, { type: 'command', command: { type: 'unprotect' } });
    else if (state === 'solo')
      world.dispatch(owner, { type: 'command', command: { type: 'protect', peer } });
  }

  /** An arbiter that shows less than a host has durably seen. */
  private arbiterForgot(): boolean {
    const { arbiter, hosts, members } = this.world;
    const shown = arbiter.record?.generation ?? 0;
    const seen = [...hosts.values()].map((host) => host.note()?.generationSeen ?? 0);
    return Math.max(...seen, ...members.map((m) => m.core.status().generation)) > shown;
  }

  /** The newest image alive, unless some process that is gone may have been given a newer one. */
  private newestImage(): Member | undefined {
    const { members, hosts } = this.world;
    const [holder] = members
      .filter((m) => m.core.status().generation > 0 && (m.isPrimary || m.image !== null))
      .sort((one, other) => rank(other) - rank(one));
    if (!holder) return undefined;
    const { generation } = holder.core.status();
    const surpassed = [...hosts.values()].some(
      (host) => host.attemptedByOthers(holder.incarnation) > generation,
    );
    return surpassed ? undefined : holder;
  }

  private vouch(holder: Member): void {
    this.world.vouched.add(holder.incarnation);
    const type = holder.isPrimary ? 'reseed' : 'force';
    this.world.dispatch(holder, { type: 'command', command: { type } });
  }

  /** Nothing of the VM lives and the arbiter knows nothing of it: a new VM under an old name. */
  private startAfresh(): void {
    const { world } = this;
    for (const member of [...world.members]) world.crash(member);
    for (const host of world.hosts.values()) host.forget();
    world.arbiter.renew();
    world.pair.forget();
    world.create('a');
  }
}

function rank(member: Member): number {
  const image = member.running || member.image !== null;
  return (image ? 1e6 : 0) + member.core.status().generation * 2 + (member.isPrimary ? 1 : 0);
}
