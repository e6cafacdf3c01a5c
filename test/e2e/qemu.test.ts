/** A VM on a stock QEMU: real processes, SIGKILL, and a client that judges from outside. */
import { readFileSync, readdirSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { testIf, until } from '../within.js';
import { processTree, type Host, type TestPool } from './pool.js';
import { rest, sceneTest, type Scene } from './scene.js';

const ROUNDS = 3;
const e2e = suite('qemu');
const missing = whatQemuNeeds();

function onQemu(name: string, deadlineMs: number, play: (scene: Scene) => Promise<void>): void {
  if (missing === '') sceneTest(e2e, name, deadlineMs, play, { engine: 'qemu' });
  else testIf(e2e, name, missing, () => {});
}

function qemuOf(host: Host): number {
  const pids = processTree(host.process?.pid ?? 0).filter((pid) => nameOf(pid).startsWith('qemu'));
  assert.is(pids.length, 1, `QEMUs of host ${host.name}: ${pids.join(' ')}`);
  return pids[0];
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8');
  } catch {
    return '';
  }
}

function anyQemu(): string[] {
  return readdirSync('/proc').filter(
    (pid) => /^\d+$/.test(pid) && nameOf(Number(pid)).startsWith('qemu'),
  );
}

async function isQemu(pool: TestPool, host: Host): Promise<void> {
  const status = await pool.status(host, 'web');
  assert.is(status?.engine, 'qemu');
  assert.is(status?.dirtyTracking, 'compare');
}

onQemu('kill -9 of each host in turn, re-protected every time', 120_000, async (scene) => {
  const { pool, a, b } = scene;
  await isQemu(pool, a);
  let [owner, standby] = [a, b];
  for (let round = 0; round < ROUNDS; round += 1) {
    await rest(700);
    const orphan = qemuOf(owner);
    await pool.kill(owner.process);
    const after = await pool.waitFor(standby, 'web', 'solo');
    assert.is(after.owner, standby.name);
    await until(5_000, 'the end of the QEMU', () => !anyQemu().includes(String(orphan)));
    await pool.startHost(owner);
    await pool.waitFor(standby, 'web', 'protected');
    [owner, standby] = [standby, owner];
  }
  await rest(500);
});

onQemu("kill -9 of the owner's QEMU alone is taken over", 60_000, async (scene) => {
  const { pool, a, b } = scene;
  await rest(700);
  process.kill(qemuOf(a), 'SIGKILL');
  const after = await pool.waitFor(b, 'web', 'protected');
  assert.is(after.owner, 'b');
  assert.is(after.peer, 'a');
  await rest(500);
});

onQemu(
  "kill -9 of the standby's QEMU is noticed, and another takes its place",
  60_000,
  async (scene) => {
    const { pool, a, b } = scene;
    await rest(500);
    const before = await pool.status(a, 'web');
    process.kill(qemuOf(b), 'SIGKILL');
    await until(20_000, 'a new pair', async () => {
      const status = await pool.status(a, 'web');
      return status?.state === 'protected' && status.generation > (before?.generation ?? 0);
    });
    await rest(500);
  },
);

onQemu(
  'a QEMU that is stopped (SIGSTOP) does not answer, and is taken over',
  60_000,
  async (scene) => {
    const { pool, a, b } = scene;
    await rest(500);
    process.kill(qemuOf(a), 'SIGSTOP');
    const after = await pool.waitFor(b, 'web', 'protected');
    assert.is(after.owner, 'b');
    await rest(500);
  },
);

e2e.run();
