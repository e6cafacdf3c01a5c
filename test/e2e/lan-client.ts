/**
 * A client on the test's network, in a process of its own there: `node lan-client.js IP`. It keeps
 * one TCP connection to the echo server and checks every byte that comes back, and writes numbered
 * keys to redis, each after the last was acknowledged. On a line on standard input it stops, asks
 * redis for every acknowledged key, and prints what it saw as JSON.
 */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../within.js';

const [guest = ''] = process.argv.slice(2);
const ECHO_PORT = 7;
const REDIS_PORT = 6379;
const CHUNK_BYTES = 700;
const UNECHOED_BYTES_MAX = 8 * CHUNK_BYTES;
const REST_MS = 10;
const CONNECT_MS_MAX = 60_000;
const SETTLE_MS_MAX = 30_000;

export interface LanVerdict {
  readonly echoedBytes: number;
  readonly wrongBytes: number;
  /** Of either connection. */
  readonly resets: number;
  readonly ackedWrites: number;
  readonly lostWrites: number;
  readonly longestGapMs: number;
}

let resets = 0;
const stop = { asked: false };

/** A byte that depends on its place alone. */
const byteAt = (place: number): number => (place * 31 + (place >> 8) * 17 + (place >> 16)) & 0xff;

async function connected(port: number): Promise<Socket> {
  const endAt = Date.now() + CONNECT_MS_MAX;
  for (;;) {
    const socket = connect(port, guest);
    const ok = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (ok) {
      socket.on('error', () => {});
      socket.on('close', () => {
        if (!stop.asked) resets += 1;
      });
      return socket;
    }
    if (Date.now() > endAt) throw new Error(`${guest}:${port} does not answer`);
    await sleep(200);
  }
}

let sent = 0;
let echoed = 0;
let wrong = 0;
let longestGapMs = 0;

async function echo(socket: Socket): Promise<void> {
  let heardAt = performance.now();
  socket.on('data', (bytes: Buffer) => {
    for (const byte of bytes) {
      if (byte !== byteAt(echoed)) wrong += 1;
      echoed += 1;
    }
    longestGapMs = Math.max(longestGapMs, performance.now() - heardAt);
    heardAt = performance.now();
  });
  while (!stop.asked) {
    if (sent - echoed < UNECHOED_BYTES_MAX) {
      const start = sent;
      socket.write(Uint8Array.from({ length: CHUNK_BYTES }, (_, i) => byteAt(start + i)));
      sent += CHUNK_BYTES;
    }
    await sleep(REST_MS);
  }
}

let acked = 0;

/** One command at a time (RESP inline commands); the reply's first line. */
class Redis {
  private waiting: ((line: string) => void)[] = [];
  private text = '';
  private readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => {
      this.text += bytes.toString();
      for (let end = this.text.indexOf('\r\n'); end >= 0; end = this.text.indexOf('\r\n')) {
        const line = this.text.slice(0, end);
        this.text = this.text.slice(end + 2);
        this.waiting.shift()?.(line);
      }
    });
  }

  ask(command: string): Promise<string> {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.socket.write(`${command}\r\n`);
    });
  }
}

async function write(redis: Redis): Promise<void> {
  while (!stop.asked) {
    const reply = await redis.ask(`SET key:${acked} ${acked * 7}`);
    if (reply === '+OK') acked += 1;
    await sleep(REST_MS);
  }
}

/** An increment by nothing tells what a key holds, in one line, and that it holds a number. */
async function lostWrites(redis: Redis): Promise<number> {
  let lost = 0;
  for (let key = 0; key < acked; key += 1)
    if ((await redis.ask(`INCRBY key:${key} 0`)) !== `:${key * 7}`) lost += 1;
  return lost;
}

const [echoing, writing] = await Promise.all([connected(ECHO_PORT), connected(REDIS_PORT)]);
const redis = new Redis(writing);
process.stdout.write('connected\n');
const [echoDone, writeDone] = [echo(echoing), write(redis)];
await new Promise((resolve) => process.stdin.once('data', resolve));
stop.asked = true;
await echoDone;
await until(SETTLE_MS_MAX, 'the last echo', () => echoed >= sent);
await Promise.race([writeDone, sleep(SETTLE_MS_MAX)]);
const verdict: LanVerdict = {
  ...{ echoedBytes: echoed, wrongBytes: wrong, resets, ackedWrites: acked },
  ...{ lostWrites: await lostWrites(redis), longestGapMs: Math.round(longestGapMs) },
};
process.stdout.write(`${JSON.stringify(verdict)}\n`);
process.exit(0);
