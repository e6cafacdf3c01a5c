/** Sessions over real sockets: order, bounds, and how they end. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { loadFrameCodec } from '../../src/wire/frame.js';
import { until, within } from '../within.js';
import { Noted, plainPair, securePair } from './pair.js';
import { SAMPLE_LIST, SAMPLES, samplePayload } from './samples.js';

const codec = await loadFrameCodec();
const test = suite('session');

type Pair = typeof plainPair;

/** Each over plain sockets and over TLS: a session must not notice. */
function both(name: string, deadlineMs: number, play: (pair: Pair) => Promise<void>): void {
  test(`plain: ${name}`, () => within(deadlineMs, name, play(plainPair)));
  test(`TLS: ${name}`, () => within(deadlineMs, name, play(securePair)));
}

async function sessions(pair: Pair, sendBytesMax?: number): Promise<{ a: Noted; b: Noted }> {
  const { a, b } = await pair();
  return { a: new Noted(a, codec, sendBytesMax), b: new Noted(b, codec, sendBytesMax) };
}

both('every message arrives, in order, with its bytes, both ways', 5_000, async (pair) => {
  const { a, b } = await sessions(pair);
  for (const message of SAMPLE_LIST) {
    a.session.send(message, samplePayload(message.type));
    b.session.send(message, samplePayload(message.type));
  }
  for (const side of [a, b]) {
    await until(2_000, 'all messages', () => side.received.length === SAMPLE_LIST.length);
    assert.equal(side.received.map((r) => r.message), SAMPLE_LIST);
    for (const { message, payload } of side.received)
      assert.equal(new Uint8Array(payload), samplePayload(message.type));
  }
  a.session.close();
  await until(2_000, 'both ends', () => a.closings.length === 1 && b.closings.length === 1);
  assert.equal([a.closings, b.closings], [[null], [null]]);
});

both('a large part arrives whole', 5_000, async (pair) => {
  const { a, b } = await sessions(pair, 8 << 20);
  const payload = Uint8Array.from({ length: 3 << 20 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
  a.session.send(SAMPLES['epoch-part'], payload);
  await until(3_000, 'the part', () => b.received.length === 1);
  assert.ok(Buffer.from(b.received[0].payload).equals(payload));
  a.session.close();
  b.session.close();
});

both('last words leave before the end', 5_000, async (pair) => {
  const { a, b } = await sessions(pair);
  a.session.send({ type: 'refuse', reason: 'busy' });
  a.session.close();
  a.session.send({ type: 'release' });
  await until(2_000, 'the end', () => b.closings.length === 1);
  assert.equal(b.received.map((r) => r.message), [{ type: 'refuse', reason: 'busy' }]);
  await until(2_000, 'the end here', () => a.closings.length === 1);
});

both('a peer that reads nothing ends the session at the bound', 10_000, async (pair) => {
  const { a, b } = await pair();
  b.pause();
  const sender = new Noted(a, codec, 2 << 20);
  const payload = new Uint8Array(256 << 10);
  let queuedMax = 0;
  for (let i = 0; i < 400 && sender.closings.length === 0; i++) {
    sender.session.send(SAMPLES['epoch-part'], payload);
    queuedMax = Math.max(queuedMax, sender.session.queuedBytes);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.is(sender.closingCode, 'SESSION_OVERFLOW');
  assert.ok(queuedMax <= 2 << 20, `${queuedMax} bytes queued`);
  b.destroy();
});

both('what is no frame ends the session', 5_000, async (pair) => {
  const { a, b } = await pair();
  const receiver = new Noted(b, codec);
  a.write('GET / HTTP/1.1\r\nHost: example.org\r\n\r\n');
  await until(2_000, 'the end', () => receiver.closings.length === 1);
  assert.is(receiver.closingCode, 'FRAME_MAGIC');
  assert.is(receiver.received.length, 0);
  a.destroy();
});

both('a cut in the middle of a frame is no orderly end', 5_000, async (pair) => {
  const { a, b } = await pair();
  const receiver = new Noted(b, codec);
  a.end(codec.encode(10, { generation: 0, epoch: 0 }, new Uint8Array(64)).subarray(0, 50));
  await until(2_000, 'the end', () => receiver.closings.length === 1);
  assert.is(receiver.closingCode, 'FRAME_TRUNCATED');
});

both('a reset is known at once, and once', 5_000, async (pair) => {
  const { b, reset } = await pair();
  const receiver = new Noted(b, codec);
  reset();
  await until(2_000, 'the end', () => receiver.closings.length === 1);
  // TLS takes it for the end of the stream.
  if (pair === plainPair) assert.is(receiver.closingCode, 'ECONNRESET');
  receiver.session.send({ type: 'release' });
  receiver.session.close();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.is(receiver.closings.length, 1);
});

test.run();
