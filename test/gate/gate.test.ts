/** Output commit: what leaves when, what travels with an epoch, bounds, and through a takeover. */
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Gate, GateError } from '../../src/gate/gate.js';
import { decodeOutput, encodeOutput, OutputError } from '../../src/gate/output.js';
import { OutputLog } from '../../src/gate/output-log.js';
import { SerialRing } from '../../src/gate/serial-ring.js';

const test = suite('gate');
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const untext = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

class Scene {
  /** Frames and serial bytes in the order in which they left. */
  readonly left: string[] = [];
  readonly calls: string[] = [];
  readonly gate: Gate;

  constructor(bytesMax = 1 << 16) {
    this.gate = new Gate({
      bytesMax,
      onFull: () => this.calls.push('full'),
      onDrained: () => this.calls.push('drained'),
    });
    this.gate.onFrame = (nic, frame) => this.left.push(`${nic}:${untext(frame)}`);
    this.gate.onSerial = (offset, bytes) => this.left.push(`@${offset}:${untext(bytes)}`);
  }

  take(): string[] {
    return this.left.splice(0);
  }
}

test('closed: nothing leaves before its epoch is released', () => {
  const scene = new Scene();
  const { gate } = scene;
  gate.nicOut(0, text('a'));
  gate.serialOut(text('one'));
  const output = decodeOutput(gate.cut(1));
  gate.nicOut(1, text('b'));
  gate.serialOut(text('two'));
  gate.cut(2);
  gate.nicOut(0, text('c'));
  assert.equal(scene.take(), []);
  assert.equal(output.frames.map((f) => `${f.nic}:${untext(f.bytes)}`), ['0:a']);
  assert.equal([output.serialOffset, untext(output.serial)], [0, 'one']);
  gate.release(1);
  assert.equal(scene.take(), ['0:a', '@0:one']);
  gate.release(1);
  assert.equal(scene.take(), []);
  gate.release(5);
  assert.equal(scene.take(), ['1:b', '@3:two']);
  assert.is(gate.heldBytes, 1);
});

test('open: at once; what was held goes first; a cut still tells the serial stream', () => {
  const scene = new Scene();
  const { gate } = scene;
  gate.serialOut(text('held '));
  gate.cut(1);
  gate.nicOut(0, text('uncut'));
  gate.open();
  gate.nicOut(0, text('now'));
  gate.serialOut(text('free '));
  assert.equal(scene.take(), ['@0:held ', '0:uncut', '0:now', '@5:free ']);
  const output = decodeOutput(gate.cut(2));
  assert.equal([output.frames.length, output.serialOffset, untext(output.serial)], [0, 5, 'free ']);
  gate.serialOut(text('x'));
  gate.close();
  gate.serialOut(text('y'));
  gate.nicOut(0, text('late'));
  const last = decodeOutput(gate.cut(3));
  assert.equal([last.frames.length, last.serialOffset, untext(last.serial)], [1, 10, 'xy']);
  assert.equal(scene.take(), ['@10:x']);
  gate.release(3);
  assert.equal(scene.take(), ['0:late', '@11:y']);
});

test('epochs only go up, and a disposed gate lets nothing out', () => {
  const scene = new Scene();
  scene.gate.cut(7);
  assert.throws(() => scene.gate.cut(7), (error: unknown) => error instanceof GateError);
  scene.gate.nicOut(0, text('a'));
  scene.gate.serialOut(text('b'));
  scene.gate.cut(8);
  scene.gate.dispose();
  scene.gate.release(8);
  scene.gate.open();
  scene.gate.nicOut(0, text('c'));
  assert.equal(scene.take(), []);
  assert.is(scene.gate.heldBytes, 0);
});

test('bounds: full once, drained at half, frames past the bound are dropped', () => {
  const scene = new Scene(10_000);
  const { gate, calls } = scene;
  for (let epoch = 1; epoch <= 11; epoch++) {
    gate.nicOut(0, new Uint8Array(1_000));
    gate.cut(epoch);
  }
  assert.equal(calls, ['full']);
  gate.release(5);
  assert.equal(calls, ['full']);
  gate.release(6);
  assert.equal(calls, ['full', 'drained']);
  for (let i = 0; i < 2_000; i++) gate.nicOut(0, new Uint8Array(1_000));
  assert.ok(gate.heldBytes < 1 << 20, `${gate.heldBytes} held`);
  assert.ok(gate.framesDropped > 1_000);
  assert.ok(gate.cut(12).length < 2 << 20);
});

test('an open gate keeps no more serial than the ring holds', () => {
  const { gate } = new Scene();
  gate.open();
  for (let i = 0; i < 300; i++) gate.serialOut(new Uint8Array(10_000).fill(i & 0xff));
  const output = decodeOutput(gate.cut(1));
  assert.ok(output.serial.length <= 1 << 20);
  assert.ok(output.serial.length > 1_000_000);
  assert.is(output.serialOffset + output.serial.length, 3_000_000);
});

test('a takeover gives again what may not have left, serial by its place', () => {
  const old = new Scene();
  const log = new OutputLog();
  const ring = new SerialRing();
  old.gate.onSerial = (offset, bytes) => ring.append(offset, bytes);
  for (let epoch = 10; epoch < 14; epoch++) {
    old.gate.nicOut(0, text(`f${epoch}`));
    old.gate.serialOut(text(`[${epoch}]`));
    log.commit(epoch, old.gate.cut(epoch));
  }
  old.gate.release(12); // The standby heard of 11 only.
  log.releasedThrough(11);
  old.gate.serialOut(text('never acked'));
  old.gate.dispose();

  const next = new Scene();
  next.gate.adopt(log);
  next.gate.onSerial = (offset, bytes) => {
    next.left.push(`@${offset}:${untext(bytes)}`);
    ring.append(offset, bytes);
  };
  assert.equal(next.take(), []);
  assert.is(next.gate.serialOffset, 16);
  next.gate.open();
  assert.equal(next.take(), ['0:f12', '0:f13', '@8:[12][13]']);
  next.gate.serialOut(text('[14]'));
  assert.is(untext(ring.read(0).bytes), '[10][11][12][13][14]');
  const first = decodeOutput(next.gate.cut(15));
  assert.equal([first.serialOffset, untext(first.serial)], [16, '[14]']);
  assert.is(untext(log.serial.read(0).bytes), '[10][11][12][13]');
});

test('input is acknowledged with its epoch, and goes on at the new owner', () => {
  const { gate } = new Scene();
  const typed: string[] = [];
  const acked: number[] = [];
  const log = new OutputLog();
  gate.input.onInput = (bytes) => typed.push(untext(bytes));
  gate.input.onAcked = (offset) => acked.push(offset);
  assert.is(gate.input.offer(0, text('abc')), 3);
  log.commit(1, gate.cut(1));
  gate.input.offer(3, text('def'));
  gate.release(1);
  assert.equal([typed, acked], [['abc', 'def'], [3]]);
  const next = new Scene().gate;
  next.adopt(log);
  assert.is(next.input.appliedOffset, 3);
});

test('a log at its start knows nothing and starts again clean', () => {
  const log = new OutputLog();
  const empty = log.drain();
  assert.equal([empty.frames, empty.serialOffset, empty.nextSerialOffset], [[], 0, 0]);
  const output = { frames: [], serialOffset: 900, serial: text('x'), inputOffset: 4 };
  log.commit(5, encodeOutput(output));
  assert.is(log.drain().serialOffset, 900);
  assert.throws(() => log.commit(5, encodeOutput(output)));
  log.reset();
  log.commit(2, encodeOutput(output));
  assert.is(log.drain().nextSerialOffset, 901);
});

test('any history: released output is what was sent, in order, and the log holds the rest', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('nic' as const), n: fc.nat(99) }),
    fc.record({ do: fc.constant('serial' as const), n: fc.nat(99) }),
    fc.record({ do: fc.constant('cut' as const), n: fc.nat(9) }),
    fc.record({ do: fc.constant('release' as const), n: fc.nat(3) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const sent = { frames: '', serial: '' };
      const out = { frames: '', serial: '' };
      const log = new OutputLog();
      const gate = new Gate({ bytesMax: 1 << 20, onFull: () => {}, onDrained: () => {} });
      const listen = (to: Gate): void => {
        to.onFrame = (_nic, frame) => {
          out.frames += untext(frame);
        };
        to.onSerial = (offset, bytes) => {
          assert.is(offset, out.serial.length, 'serial without gap or repeat');
          out.serial += untext(bytes);
        };
      };
      listen(gate);
      let epoch = 0;
      let committed = { frames: '', serial: '' };
      let released = 0;
      for (const { do: verb, n } of steps) {
        const label = `<${n}>`;
        if (verb === 'nic') gate.nicOut(0, text((sent.frames += label) && label));
        else if (verb === 'serial') gate.serialOut(text((sent.serial += label) && label));
        else if (verb === 'cut') {
          log.commit(++epoch, gate.cut(epoch));
          committed = { ...sent };
        } else {
          released = Math.min(epoch, released + n);
          gate.release(released);
          log.releasedThrough(released);
        }
        assert.ok(committed.frames.startsWith(out.frames), 'only committed frames leave');
        assert.ok(committed.serial.startsWith(out.serial), 'only committed serial leaves');
      }
      gate.dispose();
      const next = new Gate({ bytesMax: 1 << 20, onFull: () => {}, onDrained: () => {} });
      listen(next);
      next.adopt(log);
      next.open();
      assert.equal(out, committed);
    }),
    { numRuns: 500 },
  );
});

test('mutated output is refused with an OutputError, or is whole', () => {
  const good = encodeOutput({
    frames: [0, 1, 2].map((nic) => ({ nic, bytes: text(`frame ${nic}`) })),
    serialOffset: 12_345,
    serial: text('some serial text'),
    inputOffset: 77,
  });
  const edits = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 });
  fc.assert(
    fc.property(edits, fc.nat(good.length), (list, length) => {
      const bytes = good.slice(0, list.length % 2 === 0 ? good.length : length);
      for (const [at, value] of list) if (at < bytes.length) bytes[at] = value;
      try {
        assert.equal(encodeOutput(decodeOutput(bytes)), bytes);
      } catch (error) {
        assert.instance(error, OutputError);
      }
    }),
    { numRuns: 5_000 },
  );
});

test.run();
