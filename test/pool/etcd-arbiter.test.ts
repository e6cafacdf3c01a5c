/** A real etcd as an arbiter: alone, and three members of which one is killed under load. */
import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { testIf, until, within } from '../within.js';
import { arbiterAcceptance, proposal } from './arbiter-acceptance.js';
import { EtcdRig, whatEtcdNeeds } from './etcd-rig.js';

const etcd = suite('etcd arbiter');
const missing = whatEtcdNeeds();

if (missing === '') arbiterAcceptance(etcd, () => EtcdRig.make());

function given(name: string, size: number, play: (rig: EtcdRig) => Promise<void>): void {
  testIf(etcd, name, missing, async () => {
    const rig = await EtcdRig.make(size);
    try {
      await within(60_000, name, play(rig));
    } finally {
      await rig.close();
    }
  });
}

given(
  'any of three members may be killed under load: no change is lost or doubled',
  3,
  async (rig) => {
    const vm = randomUUID();
    const arbiter = rig.connect(2_000);
    let promised = 0;
    let maybe = 0;
    const load = { ended: false };
    const work = (async () => {
      while (!load.ended) {
        const reply = await arbiter.cas(vm, promised, proposal(vm, promised + 1));
        if (reply.outcome === 'ok') promised += 1;
        else if (reply.outcome === 'conflict') {
          const revision = reply.record?.revision ?? 0;
          assert.is(revision, promised + 1, 'only a try of our own can have come between');
          promised = revision;
          maybe += 1;
        }
      }
    })();
    for (const member of rig.members) {
      await new Promise((resolve) => setTimeout(resolve, 400));
      await rig.killMember(member);
      const before = promised;
      await until(15_000, 'changes go on with two members', () => promised > before + 5);
      rig.startMember(member);
      await new Promise((resolve) => setTimeout(resolve, 1_500));
    }
    load.ended = true;
    await work;
    const read = await arbiter.read(vm);
    assert.is(read.outcome === 'ok' && read.record?.revision, promised);
    process.stdout.write(`\nNOTE etcd: ${promised} changes, ${maybe} of them with a lost answer\n`);
    arbiter.close();
  },
);

given('without a majority the answer is unknown, and comes back with it', 3, async (rig) => {
  const vm = randomUUID();
  const arbiter = rig.connect(1_500);
  assert.is((await arbiter.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  for (const member of rig.members.slice(0, 2)) await rig.killMember(member);
  const startedAt = performance.now();
  assert.equal(await arbiter.read(vm), { outcome: 'unknown' });
  assert.equal(await arbiter.cas(vm, 1, proposal(vm, 2)), { outcome: 'unknown' });
  assert.ok(performance.now() - startedAt < 4_000, 'told within the deadlines');
  rig.startMember(rig.members[0]);
  const back = await until(15_000, 'it answers', async () => {
    const reply = await arbiter.read(vm);
    return reply.outcome === 'ok' ? reply.record : null;
  });
  assert.ok(back.revision <= 2, 'the change without an answer was made, or not');
  arbiter.close();
});

given('a key that somebody else wrote is refused loudly', 1, async (rig) => {
  const vm = randomUUID();
  const arbiter = rig.connect(2_000);
  assert.is((await arbiter.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const body = { key: base64(`mirror/vms/${vm}`), value: base64('{"vm":') };
  await post(`${rig.endpoints[0]}/v3/kv/put`, body);
  assert.equal(await arbiter.read(vm), { outcome: 'unknown' });
  assert.match(rig.faults.join(), /is damaged and not used/);
  arbiter.close();
});

function post(url: string, body: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { method: 'POST' }, (response) => {
      response.resume();
      response.on('end', () => resolve());
    });
    asked.on('error', reject);
    asked.end(JSON.stringify(body));
  });
}

etcd.run();
