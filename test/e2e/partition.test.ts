/** The network between two living hosts and the witness fails; both hosts stay up. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../within.js';
import { VM, rest, sceneTest, type Scene } from './scene.js';

const partition = suite('partition');

/** The client gets answers again. */
async function served({ client }: Scene): Promise<void> {
  const before = client.verdict().ops;
  await until(20_000, 'the client is served', () => client.verdict().ops > before + 20);
}

/** Once the network is whole, one of the two protects the VM, with the other as its standby. */
async function protectedAgain({ pool, a, b }: Scene): Promise<string> {
  return until(40_000, 'protected again', async () => {
    const states = [await pool.status(a, VM), await pool.status(b, VM)];
    const owner = states.find((status) => status?.state === 'protected');
    const standby = states.find((status) => status?.state === 'standby');
    return owner && standby ? owner.owner : null;
  });
}

sceneTest(
  partition,
  'between the hosts only: exactly one goes on, and the client sees one history',
  90_000,
  async (play) => {
    const { pool, a, b, paths } = play;
    paths.cutHosts();
    const alone = await until(20_000, 'one goes on alone', async () => {
      const states = [await pool.status(a, VM), await pool.status(b, VM)];
      return states.find((status) => status?.state === 'solo') ?? null;
    });
    await served(play);
    const other = alone.owner === 'a' ? b : a;
    const idle = await pool.status(other, VM);
    assert.is.not(idle?.state, 'solo');
    assert.is.not(idle?.state, 'protected');
    paths.heal();
    assert.is(await protectedAgain(play), alone.owner);
  },
);

sceneTest(
  partition,
  'the owner cut off from everybody: the standby takes over, the owner stops',
  90_000,
  async (play) => {
    const { pool, a, b, paths } = play;
    paths.cutHosts();
    paths.cutWitness('a');
    await pool.waitFor(b, VM, 'solo');
    await pool.waitFor(a, VM, 'waiting-arbiter');
    await served(play);
    paths.heal();
    assert.is(await protectedAgain(play), 'b');
  },
);

sceneTest(
  partition,
  'the standby cut off from everybody: the owner goes on alone',
  90_000,
  async (play) => {
    const { pool, a, b, paths } = play;
    paths.cutHosts();
    paths.cutWitness('b');
    await pool.waitFor(a, VM, 'solo');
    await pool.waitFor(b, VM, 'waiting-arbiter');
    await served(play);
    paths.heal();
    assert.is(await protectedAgain(play), 'a');
  },
);

sceneTest(
  partition,
  'all apart: both wait, nothing is shown, nothing is lost, and it goes on after',
  90_000,
  async (play) => {
    const { pool, a, b, paths, client } = play;
    paths.cutHosts();
    for (const host of ['a', 'b']) paths.cutWitness(host);
    await pool.waitFor(a, VM, 'waiting-arbiter');
    await pool.waitFor(b, VM, 'waiting-arbiter');
    const before = client.verdict().ops;
    await rest(2_000);
    assert.is(client.verdict().ops, before, 'no answer leaves either side');
    paths.heal();
    await served(play);
    await protectedAgain(play);
  },
);

partition.run();
