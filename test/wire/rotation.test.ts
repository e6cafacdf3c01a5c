/** Peers that come, go and change their keys, in reach or not, with connections up meanwhile. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { dialAnybody } from '../../src/wire/dial.js';
import { TrustKeeper } from '../../src/wire/trust-keeper.js';
import { within } from '../within.js';
import { callTo, codeOf, Member, pairOfHosts } from './secure-rig.js';

const rotation = suite('rotation');

function given(name: string, play: (a: Member, b: Member) => Promise<void>): void {
  rotation(name, async () => {
    const [a, b] = await pairOfHosts();
    try {
      await within(30_000, name, play(a, b));
    } finally {
      a.close();
      b.close();
    }
  });
}

given('a new key counts at once, the old one no more, and what runs goes on', async (a, b) => {
  const old = a.security.identity();
  const running = await dialAnybody(a.security, callTo(b, 'witness'));
  const { done, waitingFor, fingerprint } = await a.keeper.rotate(false);
  assert.equal([done, waitingFor], [true, []]);
  assert.is(a.fingerprint, fingerprint);
  assert.is.not(fingerprint, old.certificate.fingerprint);
  assert.equal(b.security.trust.byName('a')?.pins.map(({ sha256 }) => sha256), [fingerprint]);
  assert.is(await codeOf(a.ask(b)), '');
  assert.is(await codeOf(b.ask(a)), '');
  assert.is(b.security.trust.byFingerprint(old.certificate.fingerprint), null);
  const echo = new Promise((resolve) => running.socket.once('data', resolve));
  running.socket.write('on');
  assert.is(String(await within(2_000, 'the echo', echo)), 'on');
  running.socket.destroy();
});

given('a peer out of reach holds it up, and hears of it when it comes by', async (a, b) => {
  const c = await Member.start('c');
  try {
    await c.join(a);
    const before = a.fingerprint;
    // Nobody answers at c's address; c still finds a.
    a.security.trust.forget('c');
    a.security.trust.add({ name: 'c', kind: 'host', addresses: ['127.0.0.1:1'] }, certOf(c));
    c.address = '';
    const waiting = await a.keeper.rotate(false);
    assert.equal([waiting.done, waiting.waitingFor], [false, ['c']]);
    assert.is(a.fingerprint, before, 'the old one counts until then');
    assert.is(await codeOf(b.ask(a)), '');
    const rows = await c.keeper.hosts();
    assert.ok(rows.find(({ name }) => name === 'a')?.rotating, 'c has pinned both');
    const { done, fingerprint } = await a.keeper.rotate(false);
    assert.ok(done);
    assert.is(fingerprint, waiting.fingerprint, 'the one that was announced');
    for (const peer of [b, c]) assert.is(await codeOf(peer.ask(a)), '');
  } finally {
    c.close();
  }
});

given('forced, who missed it must be paired anew', async (a, b) => {
  a.security.trust.forget('b');
  a.security.trust.add({ name: 'b', kind: 'host', addresses: ['127.0.0.1:1'] }, certOf(b));
  const { done, waitingFor } = await a.keeper.rotate(true);
  assert.equal([done, waitingFor], [true, ['b']]);
  assert.is(await codeOf(b.ask(a)), 'STRANGER');
  assert.is(await codeOf(a.join(b)), 'NAME_TAKEN', 'a token alone gives nobody a known name');
  b.keeper.forget('a');
  await a.join(b);
  assert.is(await codeOf(b.ask(a)), '');
});

given('an arbiter that is not paired yet is an alarm, until it is', async (a) => {
  const witness = await Member.start('w');
  const needs = [witness.address];
  const keeper = new TrustKeeper({
    ...{ security: a.security, kind: 'host', needs, address: () => a.address, say: () => {} },
  });
  try {
    assert.is(keeper.alarms()[0].code, 'NOT_PAIRED');
    assert.match(keeper.alarms()[0].text, `mirror join ${witness.address} --token T`);
    await a.join(witness);
    assert.equal(keeper.alarms(), []);
  } finally {
    witness.close();
  }
});

given('an address that belongs to another is not taken for a new peer', async (a, b) => {
  const successor = await Member.start('b2');
  try {
    a.security.trust.learn('b', { address: successor.address, next: null });
    const { token } = successor.keeper.pairing.token(60_000);
    assert.is(await codeOf(a.keeper.pairing.join(successor.address, token)), 'NAME_TAKEN');
    a.keeper.forget('b');
    await a.keeper.pairing.join(successor.address, token);
    assert.is(await codeOf(a.ask(successor)), '', 'the token was not used up');
    assert.is(await codeOf(b.ask(a)), 'STRANGER', 'forgotten');
  } finally {
    successor.close();
  }
});

const certOf = (member: Member) => member.security.identity().certificate;

rotation.run();
