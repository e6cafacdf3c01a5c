/** The whole path on arbiters other than the witness: etcd with a member lost, shared storage. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DEVICE_BYTES, LoopDevice, whatLoopNeeds } from '../pool/device-rig.js';
import { EtcdRig, whatEtcdNeeds } from '../pool/etcd-rig.js';
import { testIf, within } from '../within.js';
import { runMirror, TestPool } from './pool.js';

const arbiters = suite('arbiters');

/** Two takeovers by SIGKILL, with re-protection; `between` runs while the VM is protected. */
async function takeovers(
  pool: TestPool,
  arbiter: string,
  between: (round: number) => Promise<void>,
): Promise<void> {
  let owner = await pool.addHost('a', { arbiter });
  let standby = await pool.addHost('b', { arbiter });
  const vm = pool.writeVm('web', {});
  const started = await pool.mirror(owner, ['start', vm, '--peer', standby.address]);
  assert.is(started.code, 0, started.stderr);
  for (let round = 0; round < 2; round += 1) {
    const before = await pool.waitFor(owner, 'web', 'protected');
    await between(round);
    await pool.kill(owner.process);
    const after = await pool.waitFor(standby, 'web', 'solo');
    assert.is(after.owner, standby.name);
    assert.ok(after.generation > before.generation);
    await pool.startHost(owner);
    await pool.waitFor(standby, 'web', 'protected');
    [owner, standby] = [standby, owner];
  }
  const stopped = await pool.mirror(owner, ['stop', 'web']);
  assert.is(stopped.code, 0, stopped.stderr);
}

async function onPool(play: (pool: TestPool) => Promise<void>): Promise<void> {
  const pool = new TestPool(1_000);
  try {
    await within(90_000, 'takeovers', play(pool));
  } finally {
    await pool.close();
  }
}

testIf(arbiters, 'etcd: takeovers while a member of three is dead', whatEtcdNeeds(), () =>
  onPool(async (pool) => {
    const etcd = await EtcdRig.make(3);
    try {
      const arbiter = `etcd:${etcd.members.map(({ client }) => client).join(',')}`;
      await takeovers(pool, arbiter, async (round) => {
        if (round > 0) etcd.startMember(etcd.members[round - 1]);
        await etcd.killMember(etcd.members[round]);
      });
    } finally {
      await etcd.close();
    }
  }),
);

arbiters('file: takeovers on a folder that a person made an arbiter, and no other', () =>
  onPool(async (pool) => {
    const root = join(pool.dir, 'shared');
    mkdirSync(root);
    const arbiter = `file:${root}`;
    const made = await runMirror(['arbiter', 'init', arbiter], 10_000);
    assert.is(made.code, 0, made.stderr);
    await takeovers(pool, arbiter, async () => {});
    const wrong = await runMirror(['arbiter', 'init', `file:${pool.dir}`], 10_000);
    assert.is(wrong.code, 4, wrong.stderr);
    assert.match(wrong.stderr, /is not empty/);
  }),
);

arbiters('device: takeovers on a raw device that a person made an arbiter', () =>
  onPool(async (pool) => {
    const loop = whatLoopNeeds() === '' ? new LoopDevice() : null;
    try {
      const path = loop?.path ?? join(pool.dir, 'device');
      if (!loop) writeFileSync(path, Buffer.alloc(DEVICE_BYTES));
      const arbiter = `device:${path}`;
      const made = await runMirror(['arbiter', 'init', arbiter, '--json'], 10_000);
      assert.is(made.code, 0, made.stderr);
      assert.is((JSON.parse(made.stdout) as { vms: number }).vms, 15);
      await takeovers(pool, arbiter, async () => {});
      const used = join(pool.dir, 'used');
      writeFileSync(used, Buffer.alloc(DEVICE_BYTES, 'data'));
      const wrong = await runMirror(['arbiter', 'init', `device:${used}`], 10_000);
      assert.is(wrong.code, 4, wrong.stderr);
      assert.match(wrong.stderr, /is not empty/);
    } finally {
      for (const host of pool.hosts) await pool.kill(host.process);
      loop?.close();
    }
  }),
);

arbiters.run();
