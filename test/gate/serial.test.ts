/** The serial ring and the input stream against simple models of them. */
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { InputQueue, SerialInput } from '../../src/gate/serial-input.js';
import { SerialRing } from '../../src/gate/serial-ring.js';

const test = suite('serial');
const untext = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

test('the ring holds the end of the stream, whatever overlaps', () => {
  const appends = fc.array(fc.record({ back: fc.nat(20), length: fc.nat(50) }), { maxLength: 30 });
  fc.assert(
    fc.property(appends, fc.nat(200), (list, from) => {
      const ring = new SerialRing(32);
      const byteAt = (offset: number): number => (offset * 7 + 3) & 0xff;
      let end = 0;
      for (const { back, length } of list) {
        const offset = Math.max(0, end - back);
        ring.append(offset, Uint8Array.from({ length }, (_, i) => byteAt(offset + i)));
        end = Math.max(end, offset + length);
      }
      assert.equal([ring.start, ring.end], [Math.max(0, end - 32), end]);
      const read = ring.read(from);
      const offset = from > end ? end : Math.max(from, ring.start);
      assert.equal([read.offset, read.gap], [offset, offset !== from]);
      const expected = Uint8Array.from({ length: end - offset }, (_, i) => byteAt(offset + i));
      assert.equal(read.bytes, expected);
    }),
    { numRuns: 1_000 },
  );
});

test('a hole in the stream is shown as a gap', () => {
  const ring = new SerialRing(16);
  ring.append(0, text('abc'));
  ring.append(10, text('xyz'));
  assert.equal(ring.read(1), { offset: 10, bytes: text('xyz'), gap: true });
  assert.equal(ring.read(11, 1), { offset: 11, bytes: text('y'), gap: false });
});

test('input goes in once and in order through repeats, gaps and the bound', () => {
  const input = new SerialInput(0, 8);
  let typed = '';
  input.onInput = (bytes) => {
    typed += untext(bytes);
  };
  assert.is(input.offer(0, text('abc')), 3);
  assert.is(input.offer(1, text('bcd')), 4);
  assert.is(input.offer(9, text('zzz')), 4, 'a gap is refused');
  assert.is(input.offer(4, text('efghijkl')), 8, 'no more than the bound unacknowledged');
  input.acknowledge(5);
  assert.is(input.offer(4, text('efghijkl')), 12);
  assert.is(typed, 'abcdefghijkl');
  assert.throws(() => input.acknowledge(13));
});

test('the writer sends again from where the new owner stands', () => {
  const queue = new InputQueue(0, 8);
  assert.is(queue.push(text('abcdef')), 6);
  assert.is(queue.push(text('ghijk')), 2);
  queue.acknowledge(2);
  assert.is(queue.push(text('ijk')), 2);
  assert.equal(queue.pending(5), { offset: 5, bytes: text('fghij') });
  assert.equal(queue.pending(0), { offset: 2, bytes: text('cdefghij') });
  assert.equal(queue.pending(99), { offset: 10, bytes: text('') });
});

test.run();
