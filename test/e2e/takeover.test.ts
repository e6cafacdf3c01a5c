/** Real processes, SIGKILL, and a client that judges from outside. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { GuestClient } from '../../src/drill/guest-client.js';
import { EthernetSwitch } from '../../src/network/switch.js';
import { StreamNic } from '../../src/network/stream-nic.js';
import { within } from '../within.js';
import { TestPool, processTree, type Host } from './pool.js';

const e2e = suite('takeover');

interface Scene {
  readonly pool: TestPool;
  readonly a: Host;
  readonly b: Host;
  readonly client: GuestClient;
}

/** A VM protected on host a, a client at work on it; everything ends with the scene. */
async function scene(play: (scene: Scene) => Promise<void>): Promise<void> {
  const pool = new TestPool(1_000);
  const network = new EthernetSwitch();
  const { port } = await network.listen('127.0.0.1', 0);
  const nic = new StreamNic({ host: '127.0.0.1', port });
  const client = new GuestClient({
    port: nic,
    mac: '02:00:00:00:77:01',
    ip: '10.77.0.1',
    guestIp: '10.77.0.2',
    restMs: 5,
  });
  try {
    await pool.startWitness();
    const a = await pool.addHost('a');
    const b = await pool.addHost('b');
    const vm = pool.writeVm('web', { switchPort: port });
    const started = await pool.mirror(a, ['start', vm, '--peer', b.address, '--audit']);
    assert.is(started.code, 0, started.stderr);
    await client.connect(20_000);
    client.start();
    await play({ pool, a, b, client });
    const verdict = await client.finish(30_000);
    assert.is(verdict.lost, 0);
    assert.is(verdict.invented, 0);
    assert.ok(verdict.ops > 100, `${verdict.ops} operations`);
  } finally {
    client.close();
    nic.close();
    await pool.close();
    await network.close();
  }
}

const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

e2e('kill -9 of each host in turn, re-protected every time, loses nothing', () =>
  within(
    120_000,
    'four takeovers',
    scene(async ({ pool, a, b }) => {
      let [owner, standby] = [a, b];
      for (let round = 0; round < 4; round += 1) {
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
    }),
  ),
);

e2e('kill -9 of the witness changes nothing; kill -9 of the standby leaves the VM served', () =>
  within(
    60_000,
    'witness and standby',
    scene(async ({ pool, a, b }) => {
      await pool.kill(pool.witness);
      await rest(2_500);
      const unchanged = await pool.status(a, 'web');
      assert.is(unchanged?.state, 'protected');
      await pool.startWitness();
      await pool.kill(b.process);
      await pool.waitFor(a, 'web', 'solo');
      await pool.startHost(b);
      await pool.waitFor(a, 'web', 'protected');
    }),
  ),
);

e2e('a frozen owner is superseded; thawed, it stops and is of use again', () =>
  within(
    60_000,
    'freeze',
    scene(async ({ pool, a, b }) => {
      const frozen = processTree(a.process?.pid ?? 0);
      for (const pid of frozen) process.kill(pid, 'SIGSTOP');
      await pool.waitFor(b, 'web', 'solo');
      await rest(1_000);
      for (const pid of frozen) process.kill(pid, 'SIGCONT');
      await pool.waitFor(b, 'web', 'protected');
      const status = await pool.waitFor(a, 'web', 'standby');
      assert.is(status.role, 'secondary');
    }),
  ),
);

e2e('a frozen daemon leaves its VM served; planned switch-over and stop lose nothing', () =>
  within(
    60_000,
    'daemon, switch-over',
    scene(async ({ pool, a, b, client }) => {
      a.process?.kill('SIGSTOP');
      const before = client.verdict().ops;
      await rest(2_500);
      assert.ok(client.verdict().ops > before + 50, 'operations go on');
      a.process?.kill('SIGCONT');
      await pool.waitFor(a, 'web', 'protected');
      const moved = await pool.mirror(a, ['takeover', 'web']);
      assert.is(moved.code, 0, moved.stderr);
      await pool.waitFor(b, 'web', 'protected');
    }),
  ),
);

e2e('stop ends as stopped on both sides, and nobody takes over', () =>
  within(
    60_000,
    'stop',
    (async () => {
      const pool = new TestPool(500);
      try {
        await pool.startWitness();
        const a = await pool.addHost('a');
        const b = await pool.addHost('b');
        const vm = pool.writeVm('quiet', {});
        const started = await pool.mirror(a, ['start', vm, '--peer', b.address]);
        assert.is(started.code, 0, started.stderr);
        const stopped = await pool.mirror(a, ['stop', 'quiet']);
        assert.is(stopped.code, 0, stopped.stderr);
        await pool.waitFor(a, 'quiet', 'stopped');
        await rest(1_500);
        assert.is((await pool.status(b, 'quiet'))?.state, 'stopped');
        const check = await pool.mirror(a, ['status', 'quiet', '--check']);
        assert.is(check.code, 5);
        const absent = await pool.mirror(a, ['status', 'nobody']);
        assert.is(absent.code, 3);
      } finally {
        await pool.close();
      }
    })(),
  ),
);

e2e.run();
