/** Stream NICs and the switch over real sockets. */
import * as fc from 'fast-check';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { announceFrame } from '../../src/network/announce.js';
import { parseAttach } from '../../src/network/attach.js';
import { MacTable } from '../../src/network/mac-table.js';
import { NetworkError } from '../../src/network/network-error.js';
import { StreamFrameReader } from '../../src/network/stream-framing.js';
import { StreamNic } from '../../src/network/stream-nic.js';
import { EthernetSwitch } from '../../src/network/switch.js';
import { until, within } from '../within.js';

const test = suite('network');
const BROADCAST = 0xff;

/** A frame to and from hosts 1, 2, 3... ; `BROADCAST` goes to all. */
function frame(to: number, from: number, word: string): Uint8Array {
  const bytes = Buffer.alloc(60);
  bytes.fill(to === BROADCAST ? 0xff : 0, 0, 6);
  if (to !== BROADCAST) Buffer.of(0x52, 0, 0, 0, 0, to).copy(bytes, 0);
  Buffer.of(0x52, 0, 0, 0, 0, from, 0x88, 0xb5).copy(bytes, 6);
  bytes.write(word, 14);
  return bytes;
}

const wordOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.subarray(14)).toString().replace(/\0+$/, '');

class Host {
  readonly heard: string[] = [];
  readonly nic: StreamNic;

  constructor(port: number) {
    this.nic = new StreamNic({ host: '127.0.0.1', port });
    this.nic.onFrame = (bytes) => {
      this.heard.push(wordOf(bytes));
    };
  }
}

async function lan(count: number): Promise<{ hub: EthernetSwitch; port: number; hosts: Host[] }> {
  const hub = new EthernetSwitch();
  const { port } = await hub.listen('127.0.0.1', 0);
  const hosts = Array.from({ length: count }, () => new Host(port));
  await until(2_000, 'all plugged in', () => hub.figures.ports === count);
  await until(2_000, 'all connected', () => hosts.every((host) => host.nic.connected));
  return { hub, port, hosts };
}

async function settle(hosts: Host[], expected: string[][]): Promise<void> {
  const want = JSON.stringify(expected);
  await until(2_000, want, () => JSON.stringify(hosts.map((host) => host.heard)) === want);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(hosts.map((host) => host.heard), expected);
}

test('attach strings', () => {
  assert.equal(parseAttach('stream:10.0.0.1:7001'), {
    kind: 'stream',
    host: '10.0.0.1',
    port: 7001,
  });
  assert.equal(parseAttach('stream:[::1]:80'), { kind: 'stream', host: '::1', port: 80 });
  assert.equal(parseAttach('tap:br0'), { kind: 'tap', bridge: 'br0' });
  assert.equal(parseAttach('user:'), { kind: 'user', forwards: [] });
  assert.equal(parseAttach('user:8080=80,127.0.0.1:2222=22'), {
    kind: 'user',
    forwards: [
      { address: '', hostPort: 8080, guestPort: 80 },
      { address: '127.0.0.1', hostPort: 2222, guestPort: 22 },
    ],
  });
  const bads = [
    ...['stream:', 'stream:x', 'stream:x:0', 'stream:x:65536', 'stream:::1:5', 'br0', 'tap:'],
    ...['tap:../x', 'tap:averyverylongname', 'user:80', 'user:0=1', 'user:1=2,', 'user:1=70000'],
  ];
  for (const bad of bads)
    assert.throws(() => parseAttach(bad), (error: unknown) => error instanceof NetworkError);
});

test('an announcement is a broadcast from the MAC', () => {
  const bytes = Buffer.from(announceFrame('52:54:00:12:34:56'));
  assert.is(bytes.length, 60);
  assert.is(
    bytes.subarray(0, 42).toString('hex'),
    'ffffffffffff52540012345680350001080006040003' +
      '5254001234560000000052540012345600000000',
  );
  assert.throws(() => announceFrame('52:54'), (error: unknown) => error instanceof NetworkError);
});

test('the switch floods what it does not know and learns what it sees', () =>
  within(5_000, 'switching', (async () => {
    const { hub, hosts } = await lan(3);
    const [one, two, three] = hosts as [Host, Host, Host];
    one.nic.send(frame(BROADCAST, 1, 'hello'));
    await settle(hosts, [[], ['hello'], ['hello']]);
    two.nic.send(frame(1, 2, 'reply'));
    await settle(hosts, [['reply'], ['hello'], ['hello']]);
    one.nic.send(frame(2, 1, 'direct'));
    await settle(hosts, [['reply'], ['hello', 'direct'], ['hello']]);
    one.nic.send(frame(9, 1, 'unknown'));
    await settle(hosts, [['reply'], ['hello', 'direct', 'unknown'], ['hello', 'unknown']]);
    three.nic.send(frame(BROADCAST, 1, 'moved')); // A takeover: the MAC speaks from another port.
    await settle(hosts, [
      ['reply', 'moved'],
      ['hello', 'direct', 'unknown', 'moved'],
      ['hello', 'unknown'],
    ]);
    two.nic.send(frame(1, 2, 'found'));
    await until(2_000, 'the moved one', () => three.heard.includes('found'));
    assert.not(one.heard.includes('found'));
    for (const host of hosts) host.nic.close();
    await until(2_000, 'unplugged', () => hub.figures.ports === 0 && hub.figures.macs === 0);
    await hub.close();
  })()));

test('a port that is no stream of frames is unplugged, and the rest goes on', () =>
  within(5_000, 'garbage', (async () => {
    const { hub, port, hosts } = await lan(2);
    const stranger = connect(port, '127.0.0.1');
    stranger.on('error', () => {});
    stranger.resume();
    const gone = new Promise<void>((resolve) => {
      stranger.once('close', () => resolve());
    });
    stranger.write('\xff\xff\xff\xff not frames at all', 'latin1');
    await gone;
    hosts[0]?.nic.send(frame(BROADCAST, 1, 'still here'));
    await settle(hosts, [[], ['still here']]);
    for (const host of hosts) host.nic.close();
    await hub.close();
  })()));

test('a port that reads nothing costs frames, not memory', () =>
  within(10_000, 'slow port', (async () => {
    const { hub, port, hosts } = await lan(1);
    const lazy = connect(port, '127.0.0.1');
    lazy.on('error', () => {});
    lazy.pause();
    await until(2_000, 'plugged in', () => hub.figures.ports === 2);
    const big = new Uint8Array(32 << 10);
    big.set(frame(BROADCAST, 1, 'big'));
    for (let i = 0; i < 2_000 && hub.figures.framesDropped === 0; i++) {
      hosts[0]?.nic.send(big);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(hub.figures.framesDropped > 0);
    lazy.destroy();
    hosts[0]?.nic.close();
    await hub.close();
  })()));

test('a NIC dials until somebody is there, keeps little, and dials again', () =>
  within(10_000, 'redial', (async () => {
    const probe = createServer();
    await new Promise<void>((resolve) => {
      probe.listen(0, '127.0.0.1', () => resolve());
    });
    const { port } = probe.address() as AddressInfo;
    probe.close();
    const host = new Host(port);
    for (let i = 0; i < 20; i++) host.nic.send(new Uint8Array(32 << 10));
    assert.is(host.nic.framesDropped, 12, 'eight of 32 KiB are kept');
    const accepted: Socket[] = [];
    let bytesSeen = 0;
    const server = createServer((socket) => {
      accepted.push(socket);
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => {
        bytesSeen += chunk.length;
      });
    });
    server.listen(port, '127.0.0.1');
    await until(4_000, 'the kept frames', () => bytesSeen === 8 * ((32 << 10) + 4));
    accepted[0]?.resetAndDestroy();
    await until(4_000, 'another dial', () => accepted.length === 2 && host.nic.connected);
    accepted[1]?.write(Buffer.concat([Buffer.of(0, 0, 0, 60), frame(1, 2, 'back')]));
    await until(2_000, 'a frame', () => host.heard.length === 1);
    assert.equal(host.heard, ['back']);
    host.nic.close();
    server.close();
  })()));

test('framing: any chunks give the same frames, and no claim costs memory', () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 300 }), { maxLength: 20 });
  fc.assert(
    fc.property(lengths, fc.array(fc.nat(5_000), { maxLength: 20 }), (list, cuts) => {
      const stream = Buffer.concat(
        list.flatMap((n, i) => [Buffer.of(0, 0, n >> 8, n & 0xff), Buffer.alloc(n, i)]),
      );
      const at = [0, ...cuts.filter((c) => c < stream.length).sort((a, b) => a - b), stream.length];
      const got: number[] = [];
      const reader = new StreamFrameReader((bytes) => {
        assert.ok(bytes.every((byte) => byte === got.length));
        got.push(bytes.length);
      });
      at.slice(1).forEach((end, i) => reader.feed(stream.subarray(at[i], end)));
      assert.equal(got, list);
    }),
    { numRuns: 300 },
  );
  const reader = new StreamFrameReader(() => {});
  assert.throws(() => reader.feed(Buffer.of(0, 1, 0, 1)), /65537/);
  assert.throws(() => new StreamFrameReader(() => {}).feed(Buffer.alloc(4)), /0 bytes/);
});

test('the MAC table is bounded and forgets', () => {
  const table = new MacTable<string>({ entriesMax: 3, ageMsMax: 100 });
  for (let mac = 1; mac <= 4; mac++) table.learn(mac, `p${mac}`, 0);
  assert.equal([table.size, table.find(1, 0), table.find(4, 0)], [3, null, 'p4']);
  table.learn(2, 'other', 90);
  assert.equal([table.find(2, 150), table.find(3, 150)], ['other', null]);
  table.forget('other');
  assert.is(table.find(2, 150), null);
});

test.run();
