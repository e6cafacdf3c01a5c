/** Hosts that state how much memory their VMs may take, and VMs that are too large for one. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { within } from '../within.js';
import { TestPool, type Host, type Ran } from './pool.js';

const rooms = suite('room');
const DETECT_MS = 500;

async function onHosts(
  play: (pool: TestPool, a: Host, b: Host) => Promise<void>,
  options: { paired?: boolean } = {},
): Promise<void> {
  const pool = new TestPool(DETECT_MS);
  try {
    await pool.startWitness();
    const a = await pool.addHost('a', { memory: '900MiB' });
    const b = await pool.addHost('b', { memory: '512MiB' });
    if (options.paired === true) await pool.pairAll();
    await within(60_000, 'the play', play(pool, a, b));
  } finally {
    await pool.close();
  }
}

function refusedFor(ran: Ran, host: string, parts: readonly string[]): void {
  assert.is(ran.code, 4, ran.stderr);
  for (const part of [`host ${host} has too little memory`, 'Nothing was', 'Give the VM', ...parts])
    assert.match(ran.stderr, part);
}

rooms('a VM is refused by figures before it is recorded, at either host', () =>
  onHosts(async (pool, a, b) => {
    const large = pool.writeVm('large', { engine: 'v86', memory: '1000MiB' });
    const own = await pool.mirror(a, ['start', large, '--json']);
    refusedFor(own, 'a', ['1192 MiB', '--memory 900 MiB']);
    const { error } = JSON.parse(own.stdout) as { error: { code: string } };
    assert.is(error.code, 'NO_ROOM');
    const middling = pool.writeVm('web', { engine: 'v86', memory: '256MiB' });
    const start = ['start', middling, '--peer', b.address];
    refusedFor(await pool.mirror(a, start), 'b', ['704 MiB', 'available are 512 MiB']);
    for (const host of [a, b]) {
      const known = JSON.parse((await pool.mirror(host, ['list', '--json'])).stdout) as object;
      const alive = (known as { vms: { state: string }[] }).vms.filter(
        ({ state }) => state !== 'failed',
      );
      assert.equal(alive, [], 'no VM anywhere');
    }
    const alone = await pool.mirror(a, ['start', middling]);
    assert.is(alone.code, 0, alone.stderr);
    const protect = await pool.mirror(a, ['protect', 'web', '--peer', b.address]);
    refusedFor(protect, 'b', ['704 MiB', 'Nothing was changed']);
    const status = await pool.status(a, 'web');
    assert.is(status?.state, 'solo');
  }),
);

rooms('the other host says over TLS too that it has too little', () =>
  onHosts(
    async (pool, a, b) => {
      const middling = pool.writeVm('web', { engine: 'v86', memory: '256MiB' });
      const start = await pool.mirror(a, ['start', middling, '--peer', 'b']);
      refusedFor(start, 'b', ['704 MiB', 'available are 512 MiB', 'Nothing was started']);
      assert.is(await pool.status(b, 'web'), null);
      assert.is((await pool.mirror(a, ['start', middling])).code, 0);
      const protect = await pool.mirror(a, ['protect', 'web', '--peer', b.address]);
      refusedFor(protect, 'b', ['704 MiB', 'available are 512 MiB', 'Nothing was changed']);
      assert.is((await pool.status(a, 'web'))?.state, 'solo');
    },
    { paired: true },
  ),
);

rooms('what other VMs were promised is not given twice', () =>
  onHosts(async (pool, a, b) => {
    const start = (name: string, to: readonly string[]): Promise<Ran> => {
      const vm = pool.writeVm(name, { engine: 'v86', memory: '100MiB' });
      return pool.mirror(a, ['start', vm, ...to]);
    };
    const first = await start('first', ['--peer', b.address]);
    assert.is(first.code, 0, first.stderr);
    const second = await start('second', ['--peer', b.address]);
    refusedFor(second, 'b', ['392 MiB', 'available are 120 MiB']);
    assert.is((await start('second', [])).code, 0);
    refusedFor(await start('third', []), 'a', ['less 684 MiB', 'its other VMs']);
  }),
);

rooms.run();
