/** Real processes, SIGKILL, and a client that judges from outside. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../within.js';
import { ConsoleTap } from './console-tap.js';
import { isAlive, onPair, processTree, type Host, type TestPool } from './pool.js';
import { rest, sceneTest } from './scene.js';

const ROUNDS = 10;

const e2e = suite('takeover');

/** A VM of this name, protected on host a with b as its standby. */
function protectedPair(
  name: string,
  vm: string,
  play: (pool: TestPool, a: Host, b: Host) => Promise<void>,
): void {
  e2e(name, () =>
    onPair(name, 500, 60_000, async (pool, a, b) => {
      const path = pool.writeVm(vm, {});
      const started = await pool.mirror(a, ['start', path, '--peer', b.address]);
      assert.is(started.code, 0, started.stderr);
      await play(pool, a, b);
    }),
  );
}

sceneTest(
  e2e,
  'kill -9 of each host in turn, ten times, re-protected every time, loses nothing',
  180_000,
  async ({ pool, a, b }) => {
    let [owner, standby] = [a, b];
    for (let round = 0; round < ROUNDS; round += 1) {
      await rest(500);
      const before = await pool.status(owner, 'web');
      assert.is(before?.state, 'protected');
      assert.is(before?.missedPages, 0);
      await pool.kill(owner.process);
      const after = await pool.waitFor(standby, 'web', 'solo');
      assert.ok(after.committedEpoch >= (before?.committedEpoch ?? 0));
      assert.is(after.owner, standby.name);
      await pool.startHost(owner);
      await pool.waitFor(standby, 'web', 'protected');
      [owner, standby] = [standby, owner];
    }
  },
);

sceneTest(
  e2e,
  'kill -9 of the witness changes nothing; kill -9 of the standby leaves the VM served',
  60_000,
  async ({ pool, a, b }) => {
    await pool.kill(pool.witness);
    await rest(2_500);
    const unchanged = await pool.status(a, 'web');
    assert.is(unchanged?.state, 'protected');
    await pool.startWitness();
    await pool.kill(b.process);
    await pool.waitFor(a, 'web', 'solo');
    await pool.startHost(b);
    await pool.waitFor(a, 'web', 'protected');
  },
);

sceneTest(
  e2e,
  'a frozen owner is superseded; thawed, it stops and is of use again',
  60_000,
  async ({ pool, a, b }) => {
    const frozen = processTree(a.process?.pid ?? 0);
    for (const pid of frozen) process.kill(pid, 'SIGSTOP');
    await pool.waitFor(b, 'web', 'solo');
    await rest(10_000);
    for (const pid of frozen) process.kill(pid, 'SIGCONT');
    await pool.waitFor(b, 'web', 'protected');
    const status = await pool.waitFor(a, 'web', 'standby');
    assert.is(status.role, 'secondary');
  },
);

sceneTest(
  e2e,
  'a frozen VM process is superseded; thawed after ten seconds, it shows nothing new',
  90_000,
  async ({ pool, a, b, client }) => {
    const { pid } = await pool.waitFor(a, 'web', 'protected');
    process.kill(pid, 'SIGSTOP');
    await pool.waitFor(b, 'web', 'solo');
    const before = client.verdict().ops;
    await rest(10_000);
    assert.ok(client.verdict().ops > before + 100, 'the new owner serves meanwhile');
    process.kill(pid, 'SIGCONT');
    await until(10_000, 'the old owner is gone', () => !isAlive(pid));
    await pool.waitFor(b, 'web', 'protected');
    assert.is.not((await pool.waitFor(a, 'web', 'standby')).pid, pid);
  },
);

sceneTest(
  e2e,
  'SIGKILL of a daemon takes its VM processes along',
  60_000,
  async ({ pool, a, b }) => {
    const tree = processTree(a.process?.pid ?? 0);
    assert.ok(tree.length >= 2, 'a daemon and a VM process');
    process.kill(tree[0], 'SIGKILL');
    await until(5_000, 'all are gone', () => tree.every((pid) => !isAlive(pid)));
    await pool.waitFor(b, 'web', 'solo');
  },
);

protectedPair(
  'a VM process that dies when no standby is left is booted again, as loss of memory',
  'lone',
  async (pool, a, b) => {
    const before = await pool.waitFor(a, 'lone', 'protected');
    await pool.kill(b.process);
    await pool.waitFor(a, 'lone', 'solo');
    process.kill(before.pid, 'SIGKILL');
    const after = await pool.waitFor(a, 'lone', 'solo');
    assert.is.not(after.pid, before.pid);
    assert.ok(after.generation > before.generation);
    await pool.startHost(b);
    await pool.waitFor(a, 'lone', 'protected');
  },
);

protectedPair(
  'both hosts lose power: only the recorded owner boots, whoever comes back first',
  'both',
  async (pool, a, b) => {
    const before = await pool.waitFor(a, 'both', 'protected');
    await Promise.all([pool.kill(a.process), pool.kill(b.process)]);
    await pool.startHost(b);
    await rest(4_000);
    const other = await pool.mirror(b, ['status', 'both', '--check']);
    assert.is(other.code, 3, 'the standby of then has no VM, and waits');
    await pool.startHost(a);
    const after = await pool.waitFor(a, 'both', 'protected');
    assert.is(after.owner, 'a');
    assert.ok(after.generation > before.generation);
    await pool.waitFor(b, 'both', 'standby');
  },
);

protectedPair(
  '--force: another host boots a VM whose owner is gone, and only then',
  'lost',
  async (pool, a, b) => {
    await pool.kill(b.process);
    await pool.waitFor(a, 'lost', 'solo');
    await pool.mirror(a, ['unprotect', 'lost']);
    await pool.startHost(b);
    const early = await pool.mirror(b, ['takeover', 'lost', '--force']);
    assert.is(early.code, 4, early.stderr);
    assert.match(early.stderr, /owner is alive/);
    await pool.kill(a.process);
    const forced = await pool.mirror(b, ['takeover', 'lost', '--force', '--json']);
    assert.is(forced.code, 0, forced.stderr);
    assert.is((JSON.parse(forced.stdout) as { memoryLost: boolean }).memoryLost, true);
    await pool.waitFor(b, 'lost', 'solo');
    await pool.startHost(a);
    await pool.waitFor(b, 'lost', 'protected');
    await pool.waitFor(a, 'lost', 'standby');
  },
);

sceneTest(
  e2e,
  'a frozen daemon leaves its VM served; planned switch-over and stop lose nothing',
  60_000,
  async ({ pool, a, b, client }) => {
    a.process?.kill('SIGSTOP');
    const before = client.verdict().ops;
    await rest(2_500);
    assert.ok(client.verdict().ops > before + 50, 'operations go on');
    a.process?.kill('SIGCONT');
    await pool.waitFor(a, 'web', 'protected');
    const moved = await pool.mirror(a, ['takeover', 'web']);
    assert.is(moved.code, 0, moved.stderr);
    await pool.waitFor(b, 'web', 'protected');
  },
);

sceneTest(
  e2e,
  'what is typed at the standby goes in once, through takeovers; a new standby knows all',
  90_000,
  async ({ pool, a, b }) => {
    const tap = new ConsoleTap(b.socket, 'web');
    const LINES = 60;
    for (let line = 1; line <= LINES; line += 1) {
      tap.type(`line ${line}\n`);
      await rest(40);
      if (line === LINES / 2) await pool.kill(a.process);
    }
    await until(20_000, 'the last line', () => tap.text.includes(`echo line ${LINES}\n`));
    const echoes = [...tap.text.matchAll(/^echo line (\d+)$/gm)].map(([, n]) => Number(n));
    assert.equal(
      echoes,
      Array.from({ length: LINES }, (_, index) => index + 1),
    );
    assert.is(tap.gaps, 0);
    tap.close();
    await pool.startHost(a);
    await pool.waitFor(a, 'web', 'standby');
    const fresh = await pool.mirror(a, ['console', 'web', '--no-follow']);
    assert.match(fresh.stdout, /^[^]*echo line 1\n[^]*echo line 60\n/);
    assert.is(fresh.stderr.includes('no longer kept'), false);
  },
);

protectedPair(
  'stop ends as stopped on both sides, and nobody takes over',
  'quiet',
  async (pool, a, b) => {
    const stopped = await pool.mirror(a, ['stop', 'quiet']);
    assert.is(stopped.code, 0, stopped.stderr);
    await pool.waitFor(a, 'quiet', 'stopped');
    await rest(1_500);
    assert.is((await pool.status(b, 'quiet'))?.state, 'stopped');
    const check = await pool.mirror(a, ['status', 'quiet', '--check']);
    assert.is(check.code, 5);
    const absent = await pool.mirror(a, ['status', 'nobody']);
    assert.is(absent.code, 3);
  },
);

e2e.run();
