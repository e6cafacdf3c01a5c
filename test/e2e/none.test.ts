/** Two hosts and no arbiter: silence, a hand-over by a living daemon, a person's word. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { askPair } from '../../src/host/pair-link.js';
import { codeOf, Member } from '../wire/secure-rig.js';
import { until, within } from '../within.js';
import { runMirror, TestPool, type Host } from './pool.js';
import { addHost, Paths, rest, sceneTest, VM, type Scene } from './scene.js';

const none = suite('arbiter none');
const NONE = { arbiter: 'none' };
/** Much longer than any detection takes. */
const SILENCE_MS = 8_000;

const warningsOf = async (pool: TestPool, host: Host): Promise<string[]> =>
  (await pool.status(host, VM))?.warnings.map(({ code }) => code) ?? [];

const force = (pool: TestPool, host: Host) => pool.mirror(host, ['takeover', VM, '--force']);

const asideOf = (host: Host): string => {
  const dir = join(host.stateDir, 'aside');
  return existsSync(dir) ? join(dir, readdirSync(dir)[0]) : '';
};

/** The client gets answers again. */
async function served({ client }: Scene): Promise<void> {
  const before = client.verdict().ops;
  await until(20_000, 'the client is served', () => client.verdict().ops > before + 20);
}

sceneTest(
  none,
  "the owner's VM process dies: its daemon hands the record over, and nothing is lost",
  90_000,
  async (scene) => {
    const { pool, a, b } = scene;
    for (const [owner, standby] of [
      [a, b],
      [b, a],
    ]) {
      const { pid } = await pool.waitFor(owner, VM, 'protected');
      process.kill(pid, 'SIGKILL');
      const after = await pool.waitFor(standby, VM, 'protected');
      assert.is(after.owner, standby.name);
      await served(scene);
    }
    // A busy machine may lose the pair for a moment: it is made again.
    await until(30_000, 'switched over', async () => {
      const switched = await pool.mirror(a, ['takeover', VM]);
      return switched.code === 0;
    });
    await pool.waitFor(b, VM, 'protected');
    await served(scene);
  },
  NONE,
);

sceneTest(
  none,
  'paired hosts: the record is handed over inside TLS, and nobody else is told of it',
  60_000,
  async (scene) => {
    const { pool, a, b } = scene;
    const { pid } = await pool.waitFor(a, VM, 'protected');
    const { vmUuid } = JSON.parse((await pool.mirror(a, ['status', VM, '--json'])).stdout) as {
      vmUuid: string;
    };
    const c = await Member.start('c');
    try {
      const plainly = { address: b.address, vmUuid, deadlineMs: 2_000 };
      const request = { host: 'b', copy: null, change: null };
      assert.is(await askPair(c.security, { ...plainly, request }), null);
      const token = (await pool.mirror(b, ['token'])).stdout.trim();
      await c.keeper.pairing.join(b.address, token);
      for (const host of ['b', 'c'])
        assert.is(
          await codeOf(askPair(c.security, { ...plainly, request: { ...request, host } })),
          'NOT_YOURS',
        );
    } finally {
      c.close();
    }
    process.kill(pid, 'SIGKILL');
    const after = await pool.waitFor(b, VM, 'protected');
    assert.is(after.owner, 'b');
    await served(scene);
  },
  { ...NONE, paired: true },
);

sceneTest(
  none,
  'silence never promotes; a person does; and when the old host comes back, one side lives',
  120_000,
  async (scene) => {
    const { pool, a, b } = scene;
    const before = await pool.waitFor(a, VM, 'protected');
    await pool.kill(a.process);
    await pool.waitFor(b, VM, 'waiting-arbiter');
    const ops = scene.client.verdict().ops;
    await rest(SILENCE_MS);
    assert.is((await pool.status(b, VM))?.state, 'waiting-arbiter');
    assert.is(scene.client.verdict().ops, ops, 'nobody answers');
    assert.ok((await warningsOf(pool, b)).includes('WAITING_FOR_FORCE'));
    assert.match(pool.log('b'), /WAITING_FOR_FORCE/);
    const forced = await force(pool, b);
    assert.is(forced.code, 0, forced.stderr);
    const alone = await pool.waitFor(b, VM, 'solo');
    assert.ok(alone.generation > before.generation);
    await served(scene);
    await pool.startHost(a);
    const again = await pool.waitFor(b, VM, 'protected');
    assert.is(again.owner, 'b');
    await pool.waitFor(a, VM, 'standby');
    await served(scene);
    const aside = await until(5_000, 'the old record is kept', () => asideOf(a));
    assert.match(readFileSync(join(aside, 'record.json'), 'utf8'), /"owner": "a"/);
    assert.match(pool.log('a'), /host b was forced to take over/);
    assert.ok((await warningsOf(pool, a)).includes('KEPT_ASIDE'));
  },
  NONE,
);

sceneTest(
  none,
  'the whole host of the owner comes back by itself: it hands over, nothing is lost',
  90_000,
  async (scene) => {
    const { pool, a, b } = scene;
    await pool.waitFor(a, VM, 'protected');
    await pool.kill(a.process);
    await pool.waitFor(b, VM, 'waiting-arbiter');
    await pool.startHost(a);
    await pool.waitFor(b, VM, 'protected');
    await served(scene);
  },
  NONE,
);

async function onPaths(play: (pool: TestPool, paths: Paths) => Promise<void>): Promise<void> {
  const [pool, paths] = [new TestPool(1_000), new Paths()];
  try {
    await within(120_000, 'arbiter none', play(pool, paths));
  } catch (error) {
    for (const { name } of pool.hosts) process.stderr.write(`log of ${name}:\n${pool.log(name)}\n`);
    throw error;
  } finally {
    await pool.close();
    paths.close();
  }
}

none('a person is wrong: both go on, and when they meet exactly the forced side lives', () =>
  onPaths(async (pool, paths) => {
    const a = await addHost(pool, paths, 'a', 'none');
    const b = await addHost(pool, paths, 'b', 'none');
    const started = await pool.mirror(a, ['start', pool.writeVm(VM, {}), '--peer', b.address]);
    assert.is(started.code, 0, started.stderr);
    const early = await force(pool, b);
    assert.is(early.code, 4, early.stderr);
    assert.match(early.stderr, /the owner is in reach/);
    paths.cutHosts();
    await pool.waitFor(a, VM, 'solo');
    await pool.waitFor(b, VM, 'waiting-arbiter');
    assert.is((await force(pool, a)).code, 4, 'it owns the VM already');
    const forced = await force(pool, b);
    assert.is(forced.code, 0, forced.stderr);
    await pool.waitFor(b, VM, 'solo');
    assert.is((await pool.status(a, VM))?.state, 'solo', 'they have not met');
    paths.heal();
    const again = await pool.waitFor(b, VM, 'protected', 60_000);
    assert.is(again.owner, 'b');
    await pool.waitFor(a, VM, 'standby');
    const aside = asideOf(a);
    assert.is(statSync(join(aside, 'memory.bin')).size, 32 << 20);
    assert.ok(statSync(join(aside, 'devices.bin')).size > 1_000);
    assert.match(pool.log('a'), /FORCED_ELSEWHERE/);
  }),
);

none('a VM that was stopped on one host is started on the other', () =>
  onPaths(async (pool, paths) => {
    const a = await addHost(pool, paths, 'a', 'none');
    const b = await addHost(pool, paths, 'b', 'none');
    const vm = pool.writeVm(VM, {});
    for (const [owner, standby] of [
      [a, b],
      [b, a],
    ]) {
      const started = await pool.mirror(owner, ['start', vm, '--peer', standby.address]);
      assert.is(started.code, 0, started.stderr);
      assert.is((await pool.mirror(owner, ['stop', VM])).code, 0);
    }
    const wrong = await runMirror(['arbiter', 'init', 'none'], 10_000);
    assert.is(wrong.code, 2, wrong.stderr);
  }),
);

none.run();
