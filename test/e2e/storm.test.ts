/** A guest that dirties all it has, at short epochs: it slows down, memory stays bounded. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { memoryMb } from '../../bench/processes.js';
import { onPair, type Host, type TestPool } from './pool.js';
import { rest } from './scene.js';

const GUEST_MB = 32;
/**
 * Both VM processes together. Every epoch holds all of memory here: two of them are kept until they
 * are acked, one is captured, one decoded, besides the guest, its replica, and what deltas rest on.
 */
const PSS_MB_MAX = 10 * GUEST_MB + 250;
const GROWTH_MAX = 1.2;

const storm = suite('storm');

async function pairPssMb(pool: TestPool, hosts: readonly Host[]): Promise<number> {
  let sum = 0;
  for (const host of hosts) sum += memoryMb((await pool.status(host, 'storm'))?.pid ?? 0).pss;
  return sum;
}

const NAME = 'all of memory dirty at 10 ms epochs: protected all along, within the bound';

storm(NAME, () =>
  onPair(NAME, 2_000, 120_000, async (pool, a, b) => {
    const cmdline = 'tick=10 dirty=7000 pattern=random';
    const vm = pool.writeVm('storm', { cmdline, memory: `${GUEST_MB}MiB`, epoch: '10ms' });
    const started = await pool.mirror(a, ['start', vm, '--peer', b.address]);
    assert.is(started.code, 0, started.stderr);
    const first = await pool.waitFor(a, 'storm', 'protected');
    const samples: number[] = [];
    for (let round = 0; round < 8; round += 1) {
      await rest(1_500);
      samples.push(Math.round(await pairPssMb(pool, [a, b])));
      assert.is((await pool.status(a, 'storm'))?.state, 'protected');
    }
    const last = await pool.waitFor(a, 'storm', 'protected');
    assert.ok(last.committedEpoch > first.committedEpoch + 10, 'epochs go on');
    assert.is(last.generation, first.generation, 'no failover came of it');
    process.stdout.write(`\nNOTE storm: PSS of both ${samples.join(' ')} MB\n`);
    assert.ok(Math.max(...samples) <= PSS_MB_MAX, `${samples.join(' ')} > ${PSS_MB_MAX} MB`);
    assert.ok(samples[7] < samples[1] * GROWTH_MAX, `grows: ${samples.join(' ')} MB`);
    await pool.kill(a.process);
    await pool.waitFor(b, 'storm', 'solo');
  }),
);

storm.run();
