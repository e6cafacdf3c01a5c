/** The QMP client against a peer that answers, refuses, talks nonsense, falls silent, or goes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { QemuError } from '../../src/machine/qemu/qemu-error.js';
import { QmpClient } from '../../src/machine/qemu/qmp-client.js';
import { until, within } from '../within.js';

const TEST_MS_MAX = 20_000;
const GREETING = { QMP: { version: { qemu: { major: 8, minor: 1, micro: 2 } } } };
const tests = suite('qmp');

interface Peer {
  readonly client: QmpClient;
  /** What the client has sent, commands only. */
  readonly asked: string[];
  say(message: object | string): void;
  /** Answers nothing from now on. */
  mute(): void;
  hangUp(): void;
}

type Command = { execute: string; id: number };

async function withPeer(play: (peer: Peer) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mirror-qmp-'));
  const server: Server = createServer();
  const path = join(folder, 'qmp.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const near = connect(path);
  const far = await new Promise<Socket>((resolve) => server.once('connection', resolve));
  let muted = false;
  const asked: string[] = [];
  const say = (message: object | string): void => {
    far.write(`${typeof message === 'string' ? message : JSON.stringify(message)}\n`);
  };
  far.on('data', (chunk: Buffer) => {
    for (const line of chunk.toString().split('\n').filter(Boolean)) {
      const { execute, id } = JSON.parse(line) as Command;
      asked.push(execute);
      if (muted) continue;
      if (execute === 'bad') say({ error: { class: 'GenericError', desc: 'no such thing' }, id });
      else say({ return: { did: execute }, id });
    }
  });
  far.on('error', () => {});
  say(GREETING);
  const client = await QmpClient.open(near);
  try {
    const hangUp = (): void => void far.destroy();
    const mute = (): void => {
      muted = true;
    };
    await within(TEST_MS_MAX, 'the play', play({ client, asked, say, hangUp, mute }));
  } finally {
    client.close();
    far.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  }
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return (error as QemuError).code;
  }
  return 'done';
}

tests('commands are answered, refusals say why, events are told with their time', () =>
  withPeer(async ({ client, asked, say }) => {
    assert.is(client.version, '8.1.2');
    assert.equal(await client.execute('stop'), { did: 'stop' });
    assert.is(await codeOf(client.execute('bad')), 'QMP_ERROR');
    assert.is(await codeOf(client.execute('cont')), 'done');
    const heard: string[] = [];
    client.onEvent = ({ event, data, atMs }) =>
      void heard.push(`${event} ${String(data['x'])} ${atMs}`);
    say({ event: 'STOP', data: { x: 1 }, timestamp: { seconds: 2, microseconds: 500 } });
    await until(2_000, 'the event', () => heard.length > 0);
    assert.equal(heard, ['STOP 1 2000.5']);
    assert.equal(asked, ['qmp_capabilities', 'stop', 'bad', 'cont']);
  }),
);

tests('a peer that falls silent is noticed by a command, and by the watch alone', async () => {
  await withPeer(async ({ client, mute }) => {
    mute();
    assert.is(await codeOf(client.execute('stop', {}, 50)), 'QMP_TIMEOUT');
    assert.is(await codeOf(client.execute('stop')), 'QMP_TIMEOUT');
  });
  await withPeer(async ({ client, asked, mute }) => {
    const failures: string[] = [];
    client.onFailure = ({ code }) => void failures.push(code);
    client.watch();
    await until(5_000, 'the watch asks', () => asked.includes('query-status'));
    assert.equal(failures, []);
    mute();
    await until(10_000, 'the failure', () => failures.length > 0);
    assert.equal(failures, ['QMP_TIMEOUT']);
  });
});

tests('nonsense, endless lines and a closed channel are failures, told once', async () => {
  const cases: [string, (peer: Peer) => void][] = [
    ['QMP_PROTOCOL', ({ say }) => say('{"return":')],
    ['QMP_PROTOCOL', ({ say }) => say('x'.repeat(5 << 20))],
    ['QMP_CLOSED', ({ hangUp }) => hangUp()],
  ];
  for (const [code, act] of cases)
    await withPeer(async (peer) => {
      const failures: string[] = [];
      peer.client.onFailure = (error) => void failures.push(error.code);
      peer.mute();
      const pending = codeOf(peer.client.execute('stop'));
      act(peer);
      assert.is(await pending, code);
      assert.is(await codeOf(peer.client.execute('cont')), code);
      assert.equal(failures, [code]);
    });
});

tests.run();
