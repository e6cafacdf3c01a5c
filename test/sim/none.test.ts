/** Two hosts without an arbiter: what decides who holds the record, and a world of them. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  changedHere,
  forcedHere,
  handedOver,
  met,
  outranks,
  taken,
  told,
  type OwnerState,
  type RecordCopy,
} from '../../src/core/pair-record.js';
import type { Proposal, VmRecord } from '../../src/core/record.js';
import type { Member } from './member.js';
import { DETECT_MS, World } from './world.js';

const none = suite('no arbiter');

const PAIRED: VmRecord = {
  ...{ vm: 'web', vmUuid: 'u', revision: 4, generation: 4, mode: 'paired', baseEpoch: 9 },
  ...{ owner: 'a', ownerIncarnation: 'a1', peer: 'b', peerIncarnation: 'b1', diskLegs: {} },
};
const HELD: RecordCopy = { hold: 'holds', record: PAIRED };
const SEEN: RecordCopy = { hold: 'seen', record: PAIRED };

function soloOf(owner: string, generation: number, forcedAt?: number): Proposal {
  const { revision: _, ...rest } = PAIRED;
  const alone = { mode: 'solo', peer: '', peerIncarnation: '', baseEpoch: 0 } as const;
  const mine = { owner, ownerIncarnation: `${owner}1`, generation };
  return { ...rest, ...alone, ...mine, ...(forcedAt === undefined ? {} : { forcedAt }) };
}

const request = (proposal: Proposal, expectRevision = 4) => ({
  ...{ host: 'b', copy: SEEN, change: { expectRevision, proposal } },
});

none('a record is given away when the process of the owner is gone or lets go', () => {
  const given = (owner: OwnerState): string | undefined =>
    handedOver(HELD, request(soloOf('b', 5)), owner).copy?.hold;
  assert.is(given('gone'), 'gave');
  assert.is(given('yields'), 'gave');
  assert.is(given('serves'), 'holds');
  assert.is(given('unknown'), 'holds');
  const other = { ...soloOf('b', 5), ownerIncarnation: 'b2' };
  assert.is(handedOver(HELD, request(other), 'gone').copy, HELD, 'not the standby of the record');
  const late = handedOver(HELD, request(soloOf('b', 5), 3), 'gone');
  assert.equal(late.reply, { outcome: 'conflict', record: PAIRED });
});

none('a hand-over whose answer was lost is told again, and taken once', () => {
  const wish = request(soloOf('b', 5));
  const { copy: gave, reply } = handedOver(HELD, wish, 'gone');
  assert.equal(handedOver(gave, wish, 'gone'), { copy: gave, reply });
  const { copy: took } = taken(SEEN, reply, 'b');
  assert.is(took?.hold, 'holds');
  assert.equal(met(SEEN, gave, 'b'), took, 'the same by hearing of it');
  // Long after, when it has gone back to a: the old answer gives nothing.
  const back: RecordCopy = { hold: 'gave', record: { ...PAIRED, revision: 8, generation: 8 } };
  assert.equal(taken(back, reply, 'b'), { copy: back, reply: { outcome: 'unknown' } });
  assert.is(met(back, gave, 'b'), back);
  assert.is(met(null, SEEN, 'a'), null, 'a host that lost its disk is not the owner again');
  assert.equal(told(SEEN, { copy: null, reply: { outcome: 'unknown' } }), { outcome: 'unknown' });
});

none('who cannot ask the other host takes nothing but by force', () => {
  assert.is(forcedHere(SEEN, 4, soloOf('b', 5)).copy, SEEN);
  assert.is(forcedHere(SEEN, 4, soloOf('b', 4, 4)).copy, SEEN, 'not above what was seen');
  assert.is(forcedHere(SEEN, 4, soloOf('b', 5, 5)).copy?.hold, 'holds');
  assert.equal(told(SEEN, null), { outcome: 'unknown' });
});

none('at the meeting the forced side rises above the other, which then yields', () => {
  const { copy: forced } = forcedHere(SEEN, 4, soloOf('b', 5, 5));
  let alone: RecordCopy | null = HELD;
  for (const revision of [4, 5, 6])
    alone = changedHere(alone, revision, soloOf('a', revision + 1)).copy;
  assert.is(met(alone, forced, 'a'), alone, 'not before the other is above it');
  const risen = met(forced, alone, 'b');
  if (!risen) throw new Error('nothing is left');
  assert.is(risen.record.generation, 8);
  assert.is(risen.hold, 'holds');
  assert.equal(met(alone, risen, 'a'), { hold: 'seen', record: risen.record });
  assert.is(met(risen, alone, 'b'), risen);
});

none('forced on both sides: the later generation stays, and of equals the first by name', () => {
  const [a, b] = [soloOf('a', 5, 5), soloOf('b', 5, 5)].map((wish) => ({ ...wish, revision: 5 }));
  assert.ok(outranks(a, b));
  assert.not.ok(outranks(b, a));
  assert.ok(outranks({ ...b, forcedAt: 6 }, { ...a, generation: 60 }));
});

/** Runs until the VM is protected; the owner is on a. */
function protectedWorld(seed: number): World {
  const world = new World(seed, { arbiter: 'none' });
  world.create('a');
  const healthy = (): boolean =>
    world.owner()?.protects === true &&
    world.members.some((m) => m.core.status().state === 'standby');
  if (!world.schedule.runUntil(20 * DETECT_MS, healthy)) throw new Error('not protected');
  return world;
}

function standbyOn(world: World, host: string): Member {
  const standby = world.members.find((m) => m.host === host && !m.isPrimary);
  if (!standby) throw new Error(`no standby on ${host}`);
  return standby;
}

none('a host that is gone for good: nobody takes over until a person forces it', () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const world = protectedWorld(seed);
    const standby = standbyOn(world, 'b');
    world.crashHost('a', 1e9);
    world.schedule.runUntil(world.nowMs + 500 * DETECT_MS);
    assert.is(world.takeovers, 0);
    assert.is(standby.core.status().state, 'waiting-arbiter');
    world.dispatch(standby, { type: 'command', command: { type: 'force' } });
    world.schedule.runUntil(world.nowMs + 5 * DETECT_MS);
    assert.is(world.takeovers, 1);
    assert.is(standby.core.status().state, 'solo');
    world.host('a').downUntilMs = world.nowMs;
    world.schedule.runUntil(world.nowMs + 60 * DETECT_MS, () => standby.protects);
    assert.ok(standby.protects);
    assert.equal(world.oracle.violations, []);
  }
});

none('the owner process dies, or its whole host comes back: its daemon hands over', () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const world = protectedWorld(seed);
    const [owner, standby] = [world.owner(), standbyOn(world, 'b')];
    if (!owner) throw new Error('no owner');
    if (seed % 2 === 0) world.crash(owner);
    else world.crashHost('a', 20 * DETECT_MS);
    world.schedule.runUntil(world.nowMs + 80 * DETECT_MS, () => standby.protects);
    assert.ok(standby.protects, `seed ${seed}`);
    assert.equal(world.oracle.violations, []);
  }
});

none.run();
