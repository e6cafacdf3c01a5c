/** The preamble, and the hand-over of a socket to another process with nothing lost. */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { connect, createServer, type AddressInfo } from 'node:net';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { loadFrameCodec } from '../../src/wire/frame.js';
import {
  decodePreamble,
  encodePreamble,
  PreambleError,
  readPreamble,
  type Preamble,
} from '../../src/wire/preamble.js';
import { until, within } from '../within.js';
import { Noted, socketPair } from './pair.js';

const CHILD = fileURLToPath(new URL('./preamble-child.js', import.meta.url));
const GOLDEN =
  '4d495252570085a876657273696f6e739101a46b696e64a2766da6766d55756964d92436663163316264302d333661' +
  '352d346630652d396435372d316231616239613363306465a6766d4e616d65a3776562a4726f6c65a56f776e6572';
/** The same with TLS to follow, and a ticket. */
const GOLDEN_SECURE =
  '4d495252850087a876657273696f6e739101a46b696e64a2766da6766d55756964d92436663163316264302d3336' +
  '61352d346630652d396435372d316231616239613363306465a6766d4e616d65a3776562a4726f6c65a56f776e65' +
  '72a3746c73c3a67469636b6574d92066306630663066306630663066306630663066306630663066306630663066' +
  '30';
const PREAMBLE: Preamble = {
  versions: [1],
  kind: 'vm',
  vmUuid: '6f1c1bd0-36a5-4f0e-9d57-1b1ab9a3c0de',
  vmName: 'web',
  role: 'owner',
};

const codec = await loadFrameCodec();
const test = suite('preamble');

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    if (error instanceof PreambleError) return error.code;
    throw error;
  }
  return 'nothing thrown';
}

test('golden bytes', () => {
  assert.is(encodePreamble(PREAMBLE).toString('hex'), GOLDEN);
  assert.equal(decodePreamble(Buffer.from(GOLDEN, 'hex')), {
    preamble: PREAMBLE,
    byteCount: GOLDEN.length / 2,
  });
  const secure: Preamble = { ...PREAMBLE, tls: true, ticket: 'f0'.repeat(16) };
  assert.is(encodePreamble(secure).toString('hex'), GOLDEN_SECURE);
  const decoded = decodePreamble(Buffer.from(GOLDEN_SECURE, 'hex'));
  assert.equal(decoded, { preamble: secure, byteCount: GOLDEN_SECURE.length / 2 });
});

test('a caller that knows nothing of TLS is read as one without it', () => {
  const { preamble } = decodePreamble(Buffer.from(GOLDEN, 'hex'))!;
  assert.is(preamble.tls, undefined);
  assert.is(preamble.ticket, undefined);
});

test('byte by byte, a control connection goes on with what follows', () =>
  within(5_000, 'control', (async () => {
    const { a, b } = await socketPair();
    const reading = readPreamble(b, 2_000);
    const bytes = encodePreamble({ ...PREAMBLE, kind: 'control' });
    for (const byte of bytes.subarray(0, -1)) a.write(Buffer.of(byte));
    await new Promise((resolve) => setTimeout(resolve, 20));
    a.write(Buffer.concat([bytes.subarray(-1), Buffer.from('status')]));
    const { rest, ...preamble } = await reading;
    assert.equal(preamble, { ...PREAMBLE, kind: 'control' });
    assert.is(rest.length, 0);
    const next = new Promise<string>((resolve) => {
      b.once('data', (chunk: Buffer) => resolve(chunk.toString()));
    });
    b.resume();
    assert.is(await next, 'status');
    a.destroy();
    b.destroy();
  })()));

test('refused: other protocols, claims past the limit, silence, and a hang-up', () =>
  within(5_000, 'refusals', (async () => {
    const attempt = async (bytes: Buffer | string, end = false): Promise<string> => {
      const { a, b } = await socketPair();
      const reading = codeOf(readPreamble(b, 100));
      if (end) a.end(bytes);
      else a.write(bytes);
      const code = await reading;
      assert.ok(b.destroyed, 'the socket is closed');
      a.destroy();
      return code;
    };
    assert.is(await attempt('SSH-2.0-OpenSSH\r\n'), 'PREAMBLE_MAGIC');
    assert.is(await attempt(Buffer.from('MIRR\xff\xff', 'latin1')), 'PREAMBLE_TOO_LONG');
    assert.is(await attempt('MIR'), 'PREAMBLE_TIMEOUT');
    assert.is(await attempt('MIR', true), 'PREAMBLE_CUT');
  })()));

test('mutated preambles give a PreambleError or a preamble', () => {
  const good = encodePreamble(PREAMBLE);
  const edits = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 5 });
  fc.assert(
    fc.property(edits, (list) => {
      const bytes = Buffer.from(good);
      for (const [at, value] of list) bytes[at] = value;
      try {
        const decoded = decodePreamble(bytes);
        if (decoded) assert.ok(['control', 'vm', 'witness'].includes(decoded.preamble.kind));
      } catch (error) {
        assert.instance(error, PreambleError);
      }
    }),
    { numRuns: 5_000 },
  );
});

async function dialAndTalk(port: number, messages: number): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.write(encodePreamble(PREAMBLE));
  const side = new Noted(socket, codec);
  // Some with the preamble, some while the socket is on its way, some later.
  for (let sequence = 0; sequence < messages; sequence++) {
    side.session.send({ type: 'heartbeat', sequence, releasedThrough: 0 });
    if (sequence % 5 === 4) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await until(5_000, 'all answers', () => side.received.length === messages);
  side.received.forEach(({ message }, sequence) => {
    assert.equal(message, { type: 'heartbeat', sequence, releasedThrough: sequence });
  });
  side.session.close();
}

async function startChild(): Promise<ChildProcess> {
  const child = fork(CHILD);
  await new Promise((resolve) => {
    child.once('message', resolve);
  });
  return child;
}

test('a socket handed to another process loses no byte', () =>
  within(20_000, 'hand-over', (async () => {
    const child = await startChild();
    const server = createServer((socket) => {
      readPreamble(socket, 2_000).then(
        ({ rest }) => child.send({ rest: rest.toString('base64') }, socket),
        () => {},
      );
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = server.address() as AddressInfo;
    for (let i = 0; i < 50; i++) await dialAndTalk(port, 20);
    server.close();
    const exited = new Promise((resolve) => {
      child.once('exit', resolve);
    });
    child.disconnect();
    await exited;
  })()));

test.run();
