/** The guest's verifying client and its judge, against a fake guest that loses and invents. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CounterJudge } from '../../src/drill/counter-judge.js';
import { GuestClient } from '../../src/drill/guest-client.js';
import type { GuestVerdict } from '../../src/drill/guest-client.js';
import { FakeGuest } from './fake-guest.js';
import { until, within } from '../within.js';

const test = suite('guest client');
const SELF = { mac: '02:00:00:00:00:01', ip: '10.77.0.1', guestIp: '10.77.0.2' };

interface Bench {
  guest: FakeGuest;
  client: GuestClient;
}

async function withClient(work: (bench: Bench) => Promise<void>): Promise<void> {
  const guest = new FakeGuest(SELF.guestIp);
  const client = new GuestClient({ port: guest.port, ...SELF, clients: 8, retryMs: 4, restMs: 1 });
  try {
    await within(10_000, 'client', work({ guest, client }));
  } finally {
    client.close();
  }
}

/** Runs 100 operations, lets `fault` change the guest, and runs on for 100 more. */
async function verdictAfter(fault: (guest: FakeGuest) => void): Promise<GuestVerdict> {
  let verdict: GuestVerdict | null = null;
  await withClient(async ({ guest, client }) => {
    await client.connect(1_000);
    client.start();
    await until(2_000, '100 operations', () => client.verdict().ops >= 100);
    fault(guest);
    const { ops } = client.verdict();
    await until(2_000, '100 more', () => client.verdict().ops >= ops + 100);
    verdict = await client.finish(2_000);
  });
  return verdict!;
}

test('finds nothing wrong with an honest guest, however bad the network', async () => {
  await withClient(async ({ guest, client }) => {
    guest.counters.set(3, { seq: 41, value: 17 });
    guest.copies = 2;
    let random = 1;
    guest.dropFrame = () => {
      random = (random * 48_271) % 2_147_483_647;
      return random % 4 === 0;
    };
    const verdict = await client.run(500, 8_000);
    assert.is(verdict.ops, 500);
    assert.is(verdict.lost, 0);
    assert.is(verdict.invented, 0);
    assert.ok(verdict.retries > 50, `${verdict.retries} retries`);
    assert.ok(verdict.rttMsMax >= verdict.rttMsP50 && verdict.longestGapMs > 0);
    assert.ok((await client.ping(1_000)) >= 0);
  });
});

test('counts what a guest forgot', async () => {
  const verdict = await verdictAfter((guest) => {
    const counter = guest.counters.get(2)!;
    guest.counters.set(2, { seq: counter.seq - 3, value: counter.value - 3 });
  });
  // an operation in flight may have been counted, unseen, before the fault
  assert.ok(verdict.lost >= 2 && verdict.lost <= 3, `${verdict.lost} lost`);
  assert.is(verdict.invented, 0);
});

test('counts what a guest made up', async () => {
  const verdict = await verdictAfter((guest) => {
    guest.counters.get(5)!.value += 2;
  });
  assert.is(verdict.invented, 2);
  assert.is(verdict.lost, 0);
});

test('finds by the last GET what no later operation showed', async () => {
  await withClient(async ({ guest, client }) => {
    await client.connect(1_000);
    client.start(80);
    await until(2_000, '80 operations', () => client.verdict().ops >= 80);
    guest.counters.get(1)!.value -= 1;
    guest.counters.get(2)!.value += 4;
    const verdict = await client.finish(1_000);
    assert.is(verdict.lost, 1);
    assert.is(verdict.invented, 4);
  });
});

test('says what is missing when the guest falls silent', async () => {
  await withClient(async ({ guest, client }) => {
    await client.connect(1_000);
    client.start();
    await until(2_000, '20 operations', () => client.verdict().ops >= 20);
    guest.dropFrame = () => true;
    await new Promise((resolve) => setTimeout(resolve, 20)); // the clients at rest ask again
    let code = '';
    await client.finish(100).catch((error: { code: string }) => {
      code = error.code;
    });
    assert.is(code, 'guest-client-timeout');
    assert.ok(client.verdict().longestGapMs >= 80);
  });
});

test('judge: late copies of answers are no fault, and changed ones are', () => {
  const judge = new CounterJudge();
  judge.begin(1, { seq: 10, value: 4 });
  assert.is(judge.issue(1), 11);
  assert.is(judge.answer(1, { seq: 10, value: 4 }), false);
  assert.is(judge.answer(1, { seq: 11, value: 5 }), true);
  assert.is(judge.stale(1, 9), false);
  assert.is(judge.answer(1, { seq: 11, value: 5 }), false);
  assert.equal([judge.lost, judge.invented], [0, 0]);
  judge.answer(1, { seq: 11, value: 6 });
  assert.equal([judge.lost, judge.invented], [0, 1]);
  judge.answer(1, { seq: 12, value: 7 });
  assert.equal([judge.lost, judge.invented], [0, 2], 'a seq never issued');
  judge.issue(1);
  assert.is(judge.stale(1, 12), true);
  assert.equal([judge.lost, judge.invented], [0, 3]);
});

test('judge: an operation never answered may or may not have been counted', () => {
  for (const counted of [0, 1]) {
    const judge = new CounterJudge();
    judge.begin(1, { seq: 0, value: 0 });
    judge.issue(1);
    judge.final(1, { seq: counted, value: counted });
    assert.equal([judge.lost, judge.invented], [0, 0]);
  }
});

test.run();
