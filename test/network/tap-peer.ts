/** Runs inside a network namespace of its own: `node tap-peer.js echo|ready|close`. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readyLinks, type NicLink } from '../../src/network/nic-link.js';
import { until } from '../within.js';
import { ip } from './namespaces.js';

const FRAMES = 3_000;
const IN_FLIGHT_MAX = 50;

ip('link', 'add', 'br0', 'type', 'bridge');
ip('link', 'set', 'br0', 'up');
const nics = ['a', 'b'].map((id) => ({ id, attach: 'tap:br0' }));
const [readyA, readyB] = await readyLinks(nics);

function frame(number: number): Uint8Array {
  const bytes = Buffer.alloc(60 + ((number * 7) % 1_400), number & 0xff);
  bytes.fill(0xff, 0, 6);
  Buffer.from([2, 0, 0, 0, 0, 1, 0x88, 0xb5]).copy(bytes, 6);
  bytes.writeUInt32BE(number, 14);
  return bytes;
}

const isOurs = (bytes: Uint8Array): boolean => bytes[12] === 0x88 && bytes[13] === 0xb5;
const numberOf = (bytes: Uint8Array): number => Buffer.from(bytes).readUInt32BE(14);
const interfaces = (): number => ip('-o', 'link').match(/ mirror\d+:/g)?.length ?? 0;

async function heardOnce(from: NicLink, to: NicLink): Promise<void> {
  let heard = false;
  to.onFrame = (bytes) => {
    heard ||= isOurs(bytes);
  };
  await until(10_000, 'a frame', () => {
    from.send(frame(1));
    return heard;
  });
}

async function echo(): Promise<string> {
  const [a, b] = [readyA.plugIn(), readyB.plugIn()];
  await heardOnce(a, b);
  b.onFrame = (bytes) => {
    if (isOurs(bytes)) b.send(bytes);
  };
  const seen = new Set<number>();
  a.onFrame = (bytes) => {
    if (!isOurs(bytes)) return;
    const number = numberOf(bytes);
    if (Buffer.compare(bytes, frame(number)) === 0) seen.add(number);
  };
  await sleep(50);
  seen.clear();
  for (let number = 0; number < FRAMES; number += 1) {
    a.send(frame(number));
    await until(5_000, 'frames to come back', () => number - seen.size < IN_FLIGHT_MAX);
  }
  await until(5_000, 'the last frames', () => seen.size === FRAMES);
  return `${seen.size} of ${FRAMES} frames came back`;
}

async function ready(): Promise<string> {
  const b = readyB.plugIn();
  let heard = 0;
  (readyA as unknown as NicLink).onFrame = () => {
    heard += 1;
  };
  b.onFrame = (bytes) => {
    if (isOurs(bytes)) heard += 1;
  };
  for (let i = 0; i < 5; i += 1) {
    (readyA as unknown as NicLink).send(frame(i));
    b.send(frame(i));
    await sleep(20);
  }
  if (heard > 0) throw new Error(`${heard} frames before it was plugged in`);
  await heardOnce(readyA.plugIn(), b);
  return 'silent, then heard';
}

async function close(): Promise<string> {
  readyB.close();
  await until(5_000, 'one interface', () => interfaces() === 1);
  const before = interfaces();
  readyA.plugIn().close();
  await until(5_000, 'no interface', () => interfaces() === 0);
  return `${before} interface, then ${interfaces()}`;
}

const scenarios: Record<string, () => Promise<string>> = { echo, ready, close };
process.stdout.write(`${await scenarios[process.argv[2]]()}\n`);
readyA.close();
readyB.close();
