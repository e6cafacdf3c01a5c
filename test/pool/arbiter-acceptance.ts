/**
 * What every arbiter must do, whatever it is made of: compare-and-swap that exactly one wins, a
 * record that survives SIGKILL from the moment that anybody heard of it, and `unknown` (never a
 * guess, never a rejection) for whatever got no answer.
 */
import { randomUUID } from 'node:crypto';
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Proposal } from '../../src/core/record.js';
import type { Arbiter } from '../../src/pool/arbiter.js';
import { until, within } from '../within.js';

/** One arbiter under test, in processes of its own. */
export interface ArbiterRig {
  /** A host's way to it; answers that take longer than `deadlineMs` count as lost. */
  connect(deadlineMs: number): Arbiter;
  /** The same, by a way on which requests arrive and answers do not. */
  connectDeaf(deadlineMs: number): Promise<Arbiter>;
  /** SIGKILL. */
  kill(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

export function proposal(vmUuid: string, generation: number, owner = 'a'): Proposal {
  return {
    ...{ vm: 'web', vmUuid, generation, mode: 'solo', owner, ownerIncarnation: `${owner}-1` },
    ...{ peer: '', peerIncarnation: '', baseEpoch: 0, diskLegs: {} },
  };
}

export function arbiterAcceptance(test: Test, make: () => Promise<ArbiterRig>): void {
  const given = (name: string, play: (rig: ArbiterRig) => Promise<void>): void => {
    test(name, async () => {
      const rig = await make();
      try {
        await within(30_000, name, play(rig));
      } finally {
        await rig.close();
      }
    });
  };

  given('a record is made once, and changed only from the revision that it has', changes);
  given('of 100 clients that race for one revision, exactly one wins', race);
  given('no change is lost among clients that read and swap as fast as they can', increments);
  given('what anybody heard of survives SIGKILL in mid-work', survives);
  given('a lost answer is unknown, and reading back tells what became of it', deaf);
  given('without an arbiter the answer is unknown, and a warm client comes back by itself', absent);
}

async function changes(rig: ArbiterRig): Promise<void> {
  const arbiter = rig.connect(5_000);
  const [vm, other] = [randomUUID(), randomUUID()];
  assert.equal(await arbiter.read(vm), { outcome: 'ok', record: null });
  const early = await arbiter.cas(vm, 3, proposal(vm, 1));
  assert.equal(early, { outcome: 'conflict', record: null }, 'there is nothing to change yet');
  const first = { ...proposal(vm, 1), revision: 1 };
  assert.equal(await arbiter.cas(vm, 0, proposal(vm, 1)), { outcome: 'ok', record: first });
  const again = await arbiter.cas(vm, 0, proposal(vm, 2, 'b'));
  assert.equal(again, { outcome: 'conflict', record: first });
  assert.equal(await arbiter.read(vm), { outcome: 'ok', record: first });
  const second = { ...proposal(vm, 2, 'b'), revision: 2 };
  assert.equal(await arbiter.cas(vm, 1, proposal(vm, 2, 'b')), { outcome: 'ok', record: second });
  const lower = await arbiter.cas(vm, 2, proposal(vm, 2, 'c'));
  assert.equal(lower, { outcome: 'conflict', record: second }, 'generations only rise');
  assert.equal(await arbiter.read(other), { outcome: 'ok', record: null }, 'others are untouched');
  arbiter.close();
}

async function race(rig: ArbiterRig): Promise<void> {
  const vm = randomUUID();
  const racers = Array.from({ length: 100 }, () => rig.connect(20_000));
  for (let round = 0; round < 5; round += 1) {
    const replies = await Promise.all(
      racers.map((racer, index) => racer.cas(vm, round, proposal(vm, round + 1, `h${index}`))),
    );
    const won = replies.filter((reply) => reply.outcome === 'ok');
    assert.is(won.length, 1);
    assert.is(replies.filter((reply) => reply.outcome === 'conflict').length, 99);
    // The losers are all shown the same record: the winner's.
    const shown = new Set(
      replies.map((reply) => JSON.stringify('record' in reply && reply.record)),
    );
    assert.is(shown.size, 1);
  }
  for (const racer of racers) racer.close();
}

async function increments(rig: ArbiterRig): Promise<void> {
  const vm = randomUUID();
  const [clients, each] = [6, 15];
  let won = 0;
  const work = async (client: Arbiter, name: string): Promise<void> => {
    for (let done = 0; done < each;) {
      const read = await client.read(vm);
      if (read.outcome === 'unknown') throw new Error('no answer');
      const { revision, generation } = read.record ?? { revision: 0, generation: 0 };
      const swapped = await client.cas(vm, revision, proposal(vm, generation + 1, name));
      if (swapped.outcome !== 'ok') continue;
      done += 1;
      won += 1;
    }
  };
  const all = Array.from({ length: clients }, (_, index) => ({
    ...{ client: rig.connect(20_000), name: `h${index}` },
  }));
  await Promise.all(all.map(({ client, name }) => work(client, name)));
  const last = await all[0].client.read(vm);
  assert.is(last.outcome === 'ok' && last.record?.revision, won);
  assert.is(won, clients * each);
  for (const { client } of all) client.close();
}

async function survives(rig: ArbiterRig): Promise<void> {
  const vm = randomUUID();
  for (let round = 0; round < 4; round += 1) {
    const arbiter = rig.connect(2_000);
    let promised = await revisionOf(arbiter, vm);
    const work = (async () => {
      for (;;) {
        const reply = await arbiter.cas(vm, promised, proposal(vm, promised + 1));
        if (reply.outcome !== 'ok') return;
        promised += 1;
      }
    })();
    await new Promise((resolve) => setTimeout(resolve, 60 + round * 17));
    await rig.kill();
    await work;
    assert.ok(promised > 0, 'some changes were made');
    await rig.start();
    const after = await revisionOf(arbiter, vm);
    // One more may have been carried out and its answer lost.
    assert.ok(after === promised || after === promised + 1, `${after} after ${promised}`);
    arbiter.close();
  }
}

async function deaf(rig: ArbiterRig): Promise<void> {
  const vm = randomUUID();
  const [lossy, sound] = [await rig.connectDeaf(400), rig.connect(5_000)];
  const reply = await lossy.cas(vm, 0, proposal(vm, 1));
  assert.equal(reply, { outcome: 'unknown' });
  await until(5_000, 'the change is there', async () => (await revisionOf(sound, vm)) === 1);
  assert.equal(await lossy.read(vm), { outcome: 'unknown' });
  lossy.close();
  sound.close();
}

async function absent(rig: ArbiterRig): Promise<void> {
  const vm = randomUUID();
  const arbiter = rig.connect(500);
  assert.is((await arbiter.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  await rig.kill();
  const startedAt = performance.now();
  const replies = await Promise.all([arbiter.read(vm), arbiter.cas(vm, 1, proposal(vm, 2))]);
  assert.equal(replies, [{ outcome: 'unknown' }, { outcome: 'unknown' }]);
  assert.ok(performance.now() - startedAt < 2_000, 'told within the deadline');
  await rig.start();
  assert.is(await revisionOf(arbiter, vm), 1);
  arbiter.close();
  assert.equal(await arbiter.read(vm), { outcome: 'unknown' }, 'a closed client does not dial');
}

async function revisionOf(arbiter: Arbiter, vm: string): Promise<number> {
  return until(10_000, 'the arbiter answers', async () => {
    const reply = await arbiter.read(vm);
    return reply.outcome === 'unknown' ? null : { revision: reply.record?.revision ?? 0 };
  }).then((read) => read.revision);
}
