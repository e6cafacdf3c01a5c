/** Everything that must be refused at the port of a host, over real sockets. */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makeCertificate } from '../../src/wire/certificate.js';
import { connectTo, dialAnybody } from '../../src/wire/dial.js';
import { askLine } from '../../src/wire/line-exchange.js';
import { encodePreamble, preambleOf, readPreamble } from '../../src/wire/preamble.js';
import { startTls } from '../../src/wire/tls.js';
import { until, within } from '../within.js';
import { ANSWER_MS, callTo, codeOf, hungUpOn, Member, pairOfHosts } from './secure-rig.js';

const door = suite('secure door');
const CONTROL = preambleOf('control');
const TLS_FOLLOWS = encodePreamble({ ...CONTROL, tls: true });
const DAY_MS = 86_400_000;

function given(name: string, play: (a: Member, b: Member) => Promise<void>): void {
  door(name, async () => {
    const [a, b] = await pairOfHosts();
    try {
      await within(30_000, name, play(a, b));
    } finally {
      a.close();
      b.close();
    }
  });
}

const ask = async (as: Member, whom: Member): Promise<unknown> => {
  const { socket } = await dialAnybody(as.security, callTo(whom));
  return askLine(socket, { op: 'greet' }, ANSWER_MS);
};

given('paired hosts talk, each known by its name', async (a, b) => {
  assert.equal(await a.ask(b), { heard: 'greet' });
  assert.equal(await b.ask(a), { heard: 'greet' });
  assert.equal([a.asked[0].peer, b.asked[0].peer], ['b', 'a']);
});

given('an unknown certificate: refused every time, told once, even under a known name', async (
  _a,
  b,
) => {
  const thief = await Member.start('a');
  try {
    const before = b.said.length;
    for (let i = 0; i < 10; i++) assert.is(await codeOf(ask(thief, b)), 'STRANGER');
    assert.equal(b.asked, []);
    assert.is(b.said.length, before + 1, b.said.join('\n'));
    assert.match(b.said.at(-1) ?? '', /not known here .*it says a/);
  } finally {
    thief.close();
  }
});

given('somebody else at the address of a peer hears nothing', async (a, b) => {
  const heard: Buffer[] = [];
  const impostor = await Member.start('b');
  const server = createServer((socket) => {
    const listening = readPreamble(socket, ANSWER_MS).then(async () => {
      const tls = await startTls(socket, 'server', impostor.security.identity(), ANSWER_MS);
      tls.socket.on('data', (chunk: Buffer) => void heard.push(chunk));
    });
    // The caller may hang up before its own handshake is through.
    listening.catch(() => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    a.security.trust.learn('b', { address, next: null });
    b.address = address;
    assert.is(await codeOf(a.ask(b)), 'STRANGER');
    const { token } = b.keeper.pairing.token(60_000);
    const fresh = await Member.start('c');
    assert.is(await codeOf(fresh.keeper.pairing.join(address, token)), 'STRANGER');
    assert.equal(fresh.security.trust.peers(), []);
    fresh.close();
    assert.equal(heard, [], 'neither a request nor the proof of a token');
  } finally {
    server.close();
    impostor.close();
  }
});

given('a token that is replayed, expired or invented pairs nobody', async (_a, b) => {
  const [c, d] = [await Member.start('c'), await Member.start('d')];
  try {
    const { token } = b.keeper.pairing.token(60_000);
    await c.keeper.pairing.join(b.address, token);
    for (let i = 0; i < 5; i++)
      assert.is(await codeOf(d.keeper.pairing.join(b.address, token)), 'TOKEN_USED');
    assert.is(await codeOf(c.keeper.pairing.join(b.address, token)), 'TOKEN_USED');
    const late = b.keeper.pairing.token(1).token;
    await until(1_000, 'its end', () => Date.now() % 50 > 10);
    assert.is(await codeOf(d.keeper.pairing.join(b.address, late)), 'TOKEN_EXPIRED');
    assert.is(b.security.trust.byName('d'), null);
    assert.equal(d.security.trust.peers(), []);
    assert.is(b.said.filter((text) => /127.0.0.1: .* used before/.test(text)).length, 2, 'd and c');
    const namesake = await Member.start('c');
    const other = b.keeper.pairing.token(60_000).token;
    assert.is(await codeOf(namesake.keeper.pairing.join(b.address, other)), 'NAME_TAKEN');
    namesake.close();
  } finally {
    c.close();
    d.close();
  }
});

door('an expired certificate: refused at connect; what runs goes on', async () => {
  const toMs = Date.now() + 1_500;
  const a = await Member.start('a', { validity: { fromMs: 0, toMs } });
  const b = await Member.start('b');
  try {
    await a.join(b);
    assert.equal(await a.ask(b), { heard: 'greet' });
    assert.is(b.keeper.alarms()[0].code, 'CERT_EXPIRES');
    const running = await dialAnybody(a.security, callTo(b, 'witness'));
    await until(5_000, 'the end of its certificate', () => Date.now() > toMs + 10);
    assert.is(await codeOf(a.ask(b)), 'EXPIRED', 'it knows itself');
    assert.is(await codeOf(b.ask(a)), 'EXPIRED');
    const raw = await connectTo(b.address, ANSWER_MS);
    raw.write(TLS_FOLLOWS);
    const tried = startTls(raw, 'client', a.security.identity(), ANSWER_MS);
    const { socket } = await tried;
    await within(2_000, 'refused', new Promise((resolve) => socket.once('close', resolve)));
    assert.match(b.said.at(-1) ?? '', 'certificate of a has expired');
    assert.is(b.keeper.alarms()[0].code, 'CERT_EXPIRED');
    const echo = new Promise((resolve) => running.socket.once('data', resolve));
    running.socket.write('still there');
    assert.is(String(await within(2_000, 'the echo', echo)), 'still there');
    running.socket.destroy();
  } finally {
    a.close();
    b.close();
  }
});

door('plain connections: on loopback before the first pairing, then never again', async () => {
  const [a, b] = [await Member.start('a'), await Member.start('b')];
  const open = await Member.start('c', { insecure: true });
  try {
    const plain = encodePreamble(CONTROL);
    const dial = async (whom: Member): Promise<void> => {
      const socket = await connectTo(whom.address, ANSWER_MS);
      socket.write(plain);
    };
    await dial(b);
    await until(2_000, 'let in', () => b.plain.length === 1);
    await a.join(b);
    for (let i = 0; i < 5; i++) await hungUpOn(b.address, plain);
    assert.is(b.plain.length, 1);
    assert.is(b.said.filter((text) => text.includes('without TLS')).length, 1);
    assert.throws(() => a.security.routeTo('127.0.0.1:1'), /not paired with this host/);
    await open.join(b);
    await dial(open);
    await until(2_000, 'a person allowed it', () => open.plain.length === 1);
    assert.is(open.security.routeTo('10.0.0.9:1'), 'plain');
    assert.is.not(open.security.routeTo(b.address), 'plain', 'a peer is never dialled in plain');
  } finally {
    for (const member of [a, b, open]) member.close();
  }
});

given('garbage and oversize: hung up on, told once, nobody harmed', async (
  a,
  b,
) => {
  const bad = [
    'GET / HTTP/1.1\r\n\r\n',
    Buffer.from('MIRR\xff\xffoversize', 'latin1'),
    Buffer.concat([TLS_FOLLOWS, Buffer.from('this is no TLS at all, but long enough for it')]),
    // A record that claims more than TLS allows.
    Buffer.concat([TLS_FOLLOWS, Buffer.from('160303ffff', 'hex'), Buffer.alloc(70_000, 1)]),
    Buffer.alloc(100_000, 0x16),
  ];
  const before = b.said.length;
  for (const bytes of bad) for (let i = 0; i < 4; i++) await hungUpOn(b.address, bytes);
  assert.ok(b.said.length - before <= bad.length, b.said.slice(before).join('\n'));
  assert.is(await codeOf(ask(a, b)), '');
});

given('oversize and garbage inside TLS are refused too', async (a, b) => {
  for (const text of ['x'.repeat(1 << 20), 'no json\n', '[1,2]\n', '{"op":7}\n', '\n']) {
    const { socket } = await dialAnybody(a.security, callTo(b));
    const over = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.resume();
    socket.write(text);
    await within(5_000, `the end of ${text.slice(0, 20)}`, over);
  }
  await until(2_000, 'nothing is kept', () => b.connections === 0);
  assert.is(await codeOf(a.ask(b)), '');
});

given('a client without a certificate is nobody', async (_a, b) => {
  const { connect: connectTls } = await import('node:tls');
  const raw = await connectTo(b.address, ANSWER_MS);
  raw.write(TLS_FOLLOWS);
  const tls = connectTls({ socket: raw, rejectUnauthorized: false });
  tls.on('error', () => {});
  const over = new Promise((resolve) => tls.once('close', resolve));
  await within(5_000, 'the end', over);
  assert.match(b.said.at(-1) ?? '', 'shows no certificate');
});

given('half-open handshakes are bounded in number and in time', async (a, b) => {
  const [host, port] = b.address.split(':');
  const idle: Socket[] = [];
  let hungUp = 0;
  for (let i = 0; i < 60; i++) {
    const socket = connect(Number(port), host);
    socket.on('error', () => {});
    socket.on('close', () => {
      hungUp += 1;
    });
    // Half of them stop before the preamble, half before TLS.
    if (i % 2 === 0) socket.write(TLS_FOLLOWS);
    idle.push(socket);
  }
  await until(3_000, 'the surplus is hung up on', () => hungUp === 28);
  assert.is(b.connections, 32);
  assert.is(b.said.filter((text) => text.includes('prove nothing')).length, 1);
  await until(8_000, 'the rest in time', () => hungUp === 60);
  assert.is(await codeOf(a.ask(b)), '', 'there is room again');
});

given('thousands of refusals take no memory', async (_a, b) => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const thief = await Member.start('a');
  const attack = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      await hungUpOn(b.address, 'garbage, garbage');
      if (i % 10 === 0) await codeOf(ask(thief, b));
    }
  };
  const heapBytes = (): number => {
    gc();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  try {
    await attack(300);
    const before = heapBytes();
    await attack(1_500);
    const grownBytes = heapBytes() - before;
    assert.ok(grownBytes < 2 << 20, `${grownBytes} bytes more`);
    assert.is(b.connections, 0);
    assert.ok(b.said.length < 10);
  } finally {
    thief.close();
  }
});

door('the alarm is raised thirty days before the end, for this host and its peers', async () => {
  const a = await Member.start('a', { validity: { fromMs: 0, toMs: Date.now() + 29 * DAY_MS } });
  const b = await Member.start('b', { validity: { fromMs: 0, toMs: Date.now() + 31 * DAY_MS } });
  try {
    await a.join(b);
    assert.match(a.keeper.alarms()[0].text, /this host \(a\) expires on .* mirror rotate here/);
    assert.match(b.keeper.alarms()[0].text, /host a expires on .* mirror rotate there/);
    assert.is(b.keeper.alarms().length, 1, 'its own is good for longer');
    b.keeper.start();
    assert.match(b.said.at(-1) ?? '', 'host a expires');
  } finally {
    a.close();
    b.close();
  }
});

given('a peer may announce no key but its own', async (a, b) => {
  const announce = async (name: string): Promise<string> => {
    const { der } = makeCertificate(name, { fromMs: 0, toMs: Date.now() + DAY_MS }).certificate;
    const { socket } = await dialAnybody(a.security, callTo(b));
    const request = { op: 'exchange', address: '', pinned: [], next: der.toString('base64') };
    return codeOf(askLine(socket, request, ANSWER_MS));
  };
  assert.is(await announce('c'), 'BAD_CERTIFICATE');
  assert.is(b.security.trust.byName('a')?.pins.length, 1);
  assert.is(await announce('a'), '');
  assert.is(b.security.trust.byName('a')?.pins.length, 2);
});

door.run();
