/** Frames and messages: round trips, golden transcripts, limits, and mutated bytes. */
import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FRAME_HEADER_BYTES, FrameError, loadFrameCodec } from '../../src/wire/frame.js';
import { FrameReader } from '../../src/wire/frame-reader.js';
import {
  checkHeader,
  codeOf,
  decodeMessage,
  encodeMessage,
  placeOf,
} from '../../src/wire/message-codec.js';
import { SHAPES } from '../../src/wire/shapes.js';
import type { VmMessage } from '../../src/wire/vm-messages.js';
import type { Received } from './pair.js';
import { SAMPLE_LIST, samplePayload } from './samples.js';

const GOLDEN = new URL('../../../test/wire/golden/v1.json', import.meta.url);
const codec = await loadFrameCodec();
const test = suite('frame');

function frameOf(message: VmMessage, payload: Uint8Array): Buffer {
  const pieces = encodeMessage(message, payload);
  return Buffer.concat([codec.encodeHeader(codeOf(message), placeOf(message), pieces), ...pieces]);
}

function readAll(chunks: readonly Buffer[]): Received[] {
  const reader = new FrameReader(codec, checkHeader);
  const received: Received[] = [];
  for (const chunk of chunks) {
    reader.feed(chunk);
    for (let frame = reader.next(); frame; frame = reader.next())
      received.push(decodeMessage(frame.header, frame.payload));
  }
  return received;
}

function codeThrown(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof FrameError) return error.code;
    throw error;
  }
  return 'nothing thrown';
}

test('golden transcripts: the same bytes as ever, and read as ever', () => {
  const golden = JSON.parse(readFileSync(GOLDEN, 'utf8')) as Record<string, string>;
  assert.equal(Object.keys(golden).sort(), SAMPLE_LIST.map((m) => m.type).sort());
  for (const message of SAMPLE_LIST) {
    const payload = samplePayload(message.type);
    assert.is(frameOf(message, payload).toString('hex'), golden[message.type], message.type);
    const [read] = readAll([Buffer.from(golden[message.type], 'hex')]);
    assert.equal(read?.message, message);
    assert.equal(new Uint8Array(read.payload), payload);
  }
});

test('no two messages share a code', () => {
  const codes = Object.values(SHAPES).map((shape) => shape.code);
  assert.is(new Set(codes).size, codes.length);
});

test('any chunks give the same messages', () => {
  const stream = Buffer.concat(SAMPLE_LIST.map((m) => frameOf(m, samplePayload(m.type))));
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length), { maxLength: 40 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), stream.length];
      const chunks = at.slice(1).map((end, i) => stream.subarray(at[i], end));
      const received = readAll(chunks);
      assert.equal(received.map((r) => r.message), SAMPLE_LIST);
    }),
    { numRuns: 200 },
  );
});

test('a header that claims too much is refused before anything is kept for it', () => {
  const frame = frameOf(SAMPLE_LIST[3], samplePayload('epoch-part'));
  const claim = (bytes: number, type = 4): Buffer => {
    const header = Buffer.from(frame.subarray(0, FRAME_HEADER_BYTES));
    header.writeUInt8(type, 3);
    header.writeUInt32LE(bytes, 4);
    return header;
  };
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 50; i++) {
    assert.is(codeThrown(() => readAll([claim(0xffff_ffff)])), 'FRAME_TOO_LONG');
    assert.is(codeThrown(() => readAll([claim((4 << 20) + 1)])), 'FRAME_TOO_LONG');
    assert.is(codeThrown(() => readAll([claim(1 << 20, 5)])), 'FRAME_TOO_LONG', 'an ack');
  }
  assert.ok(process.memoryUsage().arrayBuffers - before < 1 << 20);
});

test('each kind of damage has its code', () => {
  const ack: VmMessage = { type: 'ack', generation: 3, epoch: 4, incarnation: 'x' };
  const frame = frameOf(ack, new Uint8Array(0));
  const damaged = (at: number, value: number): Buffer => {
    const bytes = Buffer.from(frame);
    bytes[at] = value;
    return bytes;
  };
  assert.is(codeThrown(() => readAll([damaged(0, 0)])), 'FRAME_MAGIC');
  assert.is(codeThrown(() => readAll([damaged(2, 9)])), 'FRAME_VERSION');
  assert.is(codeThrown(() => readAll([damaged(3, 200)])), 'FRAME_TYPE');
  assert.is(codeThrown(() => readAll([damaged(15, 0xff)])), 'FRAME_NUMBER');
  assert.is(codeThrown(() => readAll([damaged(frame.length - 1, 0x7a)])), 'FRAME_HASH');
  assert.is(codeThrown(() => readAll([damaged(8, 99)])), 'FRAME_MESSAGE', 'other generation');
  assert.is(codeThrown(() => readAll([damaged(16, 99)])), 'FRAME_MESSAGE', 'other epoch');
});

test('a malformed message is not sent', () => {
  const bad = [
    { type: 'ack', generation: -1, epoch: 1, incarnation: 'x' },
    { type: 'ack', generation: 1, epoch: 1.5, incarnation: 'x' },
    { type: 'hello', vmUuid: 'u', host: 'h'.repeat(5_000), incarnation: 'x', generation: 1 },
    { type: 'refuse', reason: 'because' },
    { type: 'need-files', sha256: ['../../etc/passwd'] },
  ] as unknown as VmMessage[];
  for (const message of bad)
    assert.is(codeThrown(() => frameOf(message, new Uint8Array(0))), 'FRAME_MESSAGE');
  assert.is(codeThrown(() => frameOf({ type: 'release' }, new Uint8Array(1))), 'FRAME_MESSAGE');
  const huge = new Uint8Array(4 << 20);
  assert.is(codeThrown(() => frameOf(SAMPLE_LIST[3], huge)), 'FRAME_TOO_LONG');
});

test('a mutated frame is refused with a FrameError, or is whole', () => {
  const frames = SAMPLE_LIST.map((m) => frameOf(m, samplePayload(m.type)));
  const mutation = fc.record({
    frame: fc.constantFrom(...frames),
    edits: fc.array(fc.tuple(fc.nat(1_000), fc.nat(255)), { minLength: 1, maxLength: 6 }),
    rehash: fc.boolean(),
    cut: fc.option(fc.nat(300), { nil: null }),
  });
  fc.assert(
    fc.property(mutation, ({ frame, edits, rehash, cut }) => {
      let bytes: Buffer = Buffer.from(frame);
      // With `rehash` the sender is at fault, not the network: the message checks must hold alone.
      const from = rehash ? FRAME_HEADER_BYTES : 0;
      for (const [at, value] of edits) bytes[from + (at % (bytes.length - from))] = value;
      if (cut !== null) bytes = bytes.subarray(0, cut);
      if (rehash && bytes.length > FRAME_HEADER_BYTES) {
        const header = codec.decodeHeader(bytes);
        bytes = codec.encode(header.type, header, bytes.subarray(FRAME_HEADER_BYTES));
      }
      try {
        for (const { message } of readAll([bytes])) encodeMessage(message, new Uint8Array(0));
      } catch (error) {
        assert.instance(error, FrameError);
      }
    }),
    { numRuns: 5_000 },
  );
});

test('a message of any bytes is refused with a FrameError', () => {
  fc.assert(
    fc.property(fc.constantFrom(...SAMPLE_LIST), fc.uint8Array({ maxLength: 200 }), (m, map) => {
      const payload = Buffer.concat([Buffer.alloc(4), map]);
      payload.writeUInt32LE(map.length, 0);
      const frame = codec.encode(codeOf(m), { generation: 0, epoch: 0 }, payload);
      assert.match(codeThrown(() => readAll([frame])), /^FRAME_/);
    }),
    { numRuns: 5_000 },
  );
});

test.run();
