/** A VM on a stock QEMU: real processes, SIGKILL, and a client that judges from outside. */
import { readFileSync, readdirSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { whatKvmNeeds, whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { skip, testIf, until } from '../within.js';
import { processTree, type Host, type TestPool } from './pool.js';
import { rest, sceneTest, type Scene } from './scene.js';

const ROUNDS = 2;
const e2e = suite('qemu');
const missing = whatQemuNeeds();

const noKvm = whatKvmNeeds();
/** All that a software KVM has the time for. */
const LIGHT = 'ip=10.77.0.2/24 tick=50 dirty=4 pattern=sparse';

type Play = (scene: Scene) => Promise<void>;

function onQemu(name: string, deadlineMs: number, play: Play): void {
  if (missing === '') sceneTest(e2e, name, deadlineMs, play, { engine: 'qemu' });
  else testIf(e2e, name, missing, () => {});
}

function onKvm(name: string, deadlineMs: number, play: Play): void {
  const guest = { engine: 'qemu', accelerator: 'kvm', cmdline: LIGHT } as const;
  if (missing === '' && noKvm === '') sceneTest(e2e, name, deadlineMs, play, guest);
  else skip(e2e, name, missing || noKvm);
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

async function isQemu(pool: TestPool, host: Host, driver: 'savedev' | 'colo'): Promise<void> {
  const status = await pool.status(host, 'web');
  assert.is(status?.engine, 'qemu');
  assert.is(status?.captureDriver.name, driver);
}

async function killEach({ pool, a, b }: Scene, driver: 'savedev' | 'colo'): Promise<void> {
  await isQemu(pool, a, driver);
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
    await isQemu(pool, owner, driver);
  }
  await rest(500);
  const status = await pool.status(owner, 'web');
  assert.is(status?.missedPages, 0);
  assert.ok(driver === 'savedev' || (status?.auditedEpochs ?? 0) > 0, 'audits');
}

onQemu('kill -9 of each host in turn, re-protected every time', 120_000, (scene) =>
  killEach(scene, 'savedev'),
);
onKvm('the same on KVM, by COLO', 120_000, (scene) => killEach(scene, 'colo'));

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

async function stopQemu({ pool, a, b }: Scene): Promise<void> {
  await rest(500);
  process.kill(qemuOf(a), 'SIGSTOP');
  const after = await pool.waitFor(b, 'web', 'protected');
  assert.is(after.owner, 'b');
  await rest(500);
}

onQemu('a QEMU that is stopped (SIGSTOP) does not answer, and is taken over', 60_000, stopQemu);
onKvm('so is one in COLO', 60_000, stopQemu);

e2e.run();
