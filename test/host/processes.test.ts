/** Real daemons with real VM processes: who dies with whom, and what comes back after both die. */
import { existsSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until, within } from '../within.js';
import { isAlive, onPair, type Host, type TestPool } from '../e2e/pool.js';

const processes = suite('processes');

function given(name: string, play: (pool: TestPool, a: Host, b: Host) => Promise<void>): void {
  processes(name, () => onPair(name, 500, 60_000, play));
}

async function pidOf(pool: TestPool, host: Host): Promise<number> {
  const status = await pool.status(host, 'web');
  assert.ok(status && status.pid > 0);
  return status.pid;
}

given('SIGKILL of a daemon takes its VM processes along, frozen ones too', async (pool, a, b) => {
  const vm = pool.writeVm('web', {});
  assert.is((await pool.mirror(a, ['start', vm, '--peer', b.address])).code, 0);
  const [primary, standby] = [await pidOf(pool, a), await pidOf(pool, b)];
  process.kill(standby, 'SIGSTOP');
  await pool.kill(b.process);
  await until(5_000, 'the frozen standby is gone', () => !isAlive(standby));
  await pool.kill(a.process);
  await until(5_000, 'the primary is gone', () => !isAlive(primary));
});

given('SIGTERM ends a daemon in order, and its VM goes on at the other', async (pool, a, b) => {
  const vm = pool.writeVm('web', {});
  assert.is((await pool.mirror(a, ['start', vm, '--peer', b.address])).code, 0);
  const primary = await pidOf(pool, a);
  const ended = new Promise<number | null>((resolve) => a.process?.once('exit', resolve));
  a.process?.kill('SIGTERM');
  assert.is(await within(10_000, 'the daemon ends', ended), 0);
  assert.not(isAlive(primary));
  assert.not(existsSync(a.socket));
  await pool.waitFor(b, 'web', 'solo');
  await pool.startHost(a);
  await pool.waitFor(b, 'web', 'protected');
});

given('both hosts die after a takeover: the VM boots, and is mirrored', async (pool, a, b) => {
  const vm = pool.writeVm('web', {});
  assert.is((await pool.mirror(a, ['start', vm, '--peer', b.address])).code, 0);
  await pool.kill(a.process);
  await pool.waitFor(b, 'web', 'solo');
  await pool.startHost(a);
  await pool.waitFor(b, 'web', 'protected');
  await pool.kill(b.process);
  await pool.kill(a.process);
  // Which of them the record names depends on whether a took over before it died.
  await pool.startHost(b);
  await pool.startHost(a);
  const owner = await until(30_000, 'the VM is protected again', async () => {
    for (const host of [a, b]) {
      const status = await pool.status(host, 'web');
      if (status?.state === 'protected') return host;
    }
    return null;
  });
  const other = owner === a ? b : a;
  const status = await pool.waitFor(other, 'web', 'standby');
  assert.is(status.role, 'secondary');
});

given('connections that say nothing to a standby leave no process behind', async (pool, a) => {
  const { connect } = await import('node:net');
  const { encodePreamble } = await import('../../src/wire/preamble.js');
  const [host, port] = a.address.split(':');
  const vmUuid = '01234567-89ab-4def-8123-456789abcdef';
  const preamble = { versions: [1], kind: 'vm', vmUuid, vmName: 'ghost', role: 'owner' } as const;
  const socket = connect(Number(port), host, () => void socket.write(encodePreamble(preamble)));
  socket.on('error', () => {});
  socket.resume();
  const pid = await until(5_000, 'a standby', async () => (await pool.status(a, 'ghost'))?.pid);
  socket.destroy();
  await until(10_000, 'it ends', () => !isAlive(pid));
});

processes.run();
