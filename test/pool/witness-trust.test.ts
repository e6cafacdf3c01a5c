/** Which host may change which record at a witness that knows its hosts. */
import { randomUUID } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ArbiterReply } from '../../src/core/events.js';
import type { Proposal } from '../../src/core/record.js';
import type { WitnessClient } from '../../src/pool/witness-client.js';
import { Member } from '../wire/secure-rig.js';
import { within } from '../within.js';
import { TrustedWitness } from './trusted-witness.js';

const trust = suite('witness trust');

interface Pool {
  readonly witness: TrustedWitness;
  readonly vm: string;
  /** As each of the hosts a, b and c. */
  readonly as: Record<'a' | 'b' | 'c', WitnessClient>;
  readonly members: readonly Member[];
  readonly faults: string[];
}

function given(name: string, play: (pool: Pool) => Promise<void>): void {
  trust(name, async () => {
    const witness = await TrustedWitness.start();
    const members = [await Member.start('a'), await Member.start('b'), await Member.start('c')];
    const faults: string[] = [];
    const clients: WitnessClient[] = [];
    try {
      for (const { keeper, security } of members) {
        await witness.admit(keeper);
        clients.push(witness.connect(security, (text) => void faults.push(text)));
      }
      const [a, b, c] = clients;
      const pool = { witness, vm: randomUUID(), as: { a, b, c }, members, faults };
      await within(20_000, name, play(pool));
    } finally {
      for (const client of clients) client.close();
      for (const member of members) member.close();
      await witness.close();
    }
  });
}

function record(vm: string, generation: number, owner: string, peer = ''): Proposal {
  return {
    ...{ vm: 'web', vmUuid: vm, generation, mode: peer ? 'paired' : 'solo' },
    ...{ owner, ownerIncarnation: `${owner}1`, peer, peerIncarnation: peer && `${peer}1` },
    ...{ baseEpoch: 0, diskLegs: {} },
  };
}

const won = (reply: ArbiterReply): boolean => reply.outcome === 'ok';

async function generationOf({ as, vm }: Pool): Promise<number> {
  const reply = await as.a.read(vm);
  return reply.outcome === 'ok' ? (reply.record?.generation ?? 0) : -1;
}

given('a host that had no part in a VM cannot take it, nor speak for its owner', async (pool) => {
  const { as, vm, witness } = pool;
  assert.ok(won(await as.a.cas(vm, 0, record(vm, 1, 'a'))));
  for (let i = 0; i < 5; i++) {
    assert.is((await as.c.cas(vm, 1, record(vm, 2, 'c'))).outcome, 'unknown');
    assert.is((await as.c.cas(vm, 1, record(vm, 2, 'a', 'c'))).outcome, 'unknown');
  }
  assert.is(await generationOf(pool), 1);
  assert.is(witness.said.filter((text) => text.includes('refused')).length, 1);
  assert.match(witness.said.at(-1) ?? '', 'host c claims web, which belongs to a');
  assert.match(pool.faults[0], 'host c claims web');
  // Its own it may have.
  const own = randomUUID();
  assert.is((await as.c.cas(own, 0, record(own, 1, 'a'))).outcome, 'unknown');
  assert.ok(won(await as.c.cas(own, 0, record(own, 1, 'c'))));
});

given('the peer of the record takes over; the owner cannot be spoken for', async (pool) => {
  const { as, vm } = pool;
  assert.ok(won(await as.a.cas(vm, 0, record(vm, 1, 'a'))));
  assert.is((await as.b.cas(vm, 1, record(vm, 2, 'b'))).outcome, 'unknown', 'not its peer yet');
  assert.ok(won(await as.a.cas(vm, 1, record(vm, 2, 'a', 'b'))));
  assert.is((await as.b.cas(vm, 2, record(vm, 3, 'a'))).outcome, 'unknown');
  assert.ok(won(await as.b.cas(vm, 2, record(vm, 3, 'b'))));
  assert.is((await as.a.cas(vm, 2, record(vm, 3, 'a'))).outcome, 'conflict', 'it lost');
});

given('one that had a part once may be forced to, and the witness says so', async (pool) => {
  const { as, vm, witness } = pool;
  assert.ok(won(await as.a.cas(vm, 0, record(vm, 1, 'a'))));
  assert.ok(won(await as.a.cas(vm, 1, record(vm, 2, 'a', 'b'))));
  assert.ok(won(await as.a.cas(vm, 2, record(vm, 3, 'a'))));
  assert.ok(won(await as.b.cas(vm, 3, record(vm, 4, 'b'))));
  assert.match(witness.said.at(-1) ?? '', 'host b claims web from a on the word of a person');
  assert.is((await as.c.cas(vm, 4, record(vm, 5, 'c'))).outcome, 'unknown');
});

given('strangers and plain connections get nothing from a witness with pairings', async (pool) => {
  const { witness, vm } = pool;
  const stranger = await Member.start('a');
  const plain = witness.connect();
  try {
    assert.ok(won(await pool.as.a.cas(vm, 0, record(vm, 1, 'a'))));
    assert.is((await plain.read(vm)).outcome, 'unknown');
    assert.is((await plain.cas(vm, 1, record(vm, 2, 'a'))).outcome, 'unknown');
    const faults: string[] = [];
    stranger.security.trust.add(
      { name: 'witness', kind: 'witness', addresses: [witness.address] },
      witness.server.keeper.certificate,
    );
    const client = witness.connect(stranger.security, (text) => void faults.push(text));
    for (let i = 0; i < 5; i++) assert.is((await client.read(vm)).outcome, 'unknown');
    client.close();
    assert.match(faults[0], 'the witness refuses this host: a certificate that is not known');
    assert.is(faults.length, 1);
    assert.is(witness.said.filter((text) => text.includes('not known here')).length, 1);
    assert.is(witness.said.filter((text) => text.includes('without TLS')).length, 1);
    assert.is(await generationOf(pool), 1);
  } finally {
    plain.close();
    stranger.close();
  }
});

given('a host that is forgotten is refused on the connection that it has', async (pool) => {
  const { as, vm, witness } = pool;
  assert.ok(won(await as.c.cas(vm, 0, record(vm, 1, 'c'))));
  witness.server.keeper.forget('c');
  assert.is((await as.c.cas(vm, 1, record(vm, 2, 'c'))).outcome, 'unknown');
  assert.is((await as.c.read(vm)).outcome, 'unknown');
  assert.is(await generationOf(pool), 1);
});

given('a witness with a new key goes on serving, and its hosts never lose it', async (pool) => {
  const { as, vm, witness, members } = pool;
  assert.ok(won(await as.a.cas(vm, 0, record(vm, 1, 'a'))));
  const { done } = await witness.server.keeper.rotate(false);
  assert.ok(done, 'all three have heard');
  assert.ok(won(await as.a.cas(vm, 1, record(vm, 2, 'a'))), 'on the connection that was up');
  const anew = witness.connect(members[0].security);
  assert.ok(won(await anew.cas(vm, 2, record(vm, 3, 'a'))), 'and on a new one');
  anew.close();
});

given('somebody else in the place of the witness is not believed', async (pool) => {
  const { vm, members } = pool;
  const impostor = await TrustedWitness.start();
  const faults: string[] = [];
  members[0].security.trust.learn('witness', { address: impostor.address, next: null });
  const client = impostor.connect(members[0].security, (text) => void faults.push(text));
  try {
    assert.is((await client.read(vm)).outcome, 'unknown');
    assert.is((await client.read(vm)).outcome, 'unknown');
    assert.is(faults.length, 1, 'told once');
    assert.match(faults[0], 'who answers is not witness');
  } finally {
    client.close();
    await impostor.close();
  }
});

trust.run();
