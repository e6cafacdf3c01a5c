/** A Linux with a shell command at work, through a takeover. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildLinux, LINUX_CMDLINE } from '../../src/guest/linux-builder.js';
import { whatLinuxNeeds } from '../guest/guest-rig.js';
import { testIf, until, within } from '../within.js';
import { ConsoleTap } from './console-tap.js';
import { TestPool } from './pool.js';
import { rest } from './scene.js';

const linux = suite('linux takeover');
const COUNT_COMMAND = 'i=0; while true; do i=$((i+1)); echo count $i; sleep 0.1; done\n';

async function play(pool: TestPool, folder: string): Promise<void> {
  const log = (line: string): void => void process.stdout.write(`${line}\n`);
  const built = await within(150_000, 'build', buildLinux({ outDir: folder, log }));
  await pool.startWitness();
  const a = await pool.addHost('a');
  const b = await pool.addHost('b');
  const boot = `kernel: "${built.kernel}", initrd: "${built.initrd}"`;
  const vm = pool.writeVm('tux', { boot, cmdline: LINUX_CMDLINE, memory: '96MiB', epoch: '50ms' });
  const started = await pool.mirror(a, ['start', vm, '--peer', b.address], 120_000);
  assert.is(started.code, 0, started.stderr);
  const tap = new ConsoleTap(a.socket, 'tux');
  await until(120_000, 'a prompt', () => tap.text.includes('mirror# '));
  tap.type(COUNT_COMMAND);
  await until(30_000, 'the command counts', () => tap.text.includes('count 20'));
  await pool.waitFor(a, 'tux', 'protected');
  await pool.kill(a.process);
  await pool.waitFor(b, 'tux', 'solo');
  tap.follow(b.socket);
  const before = countsOf(tap.text).at(-1) ?? 0;
  await until(30_000, 'it goes on counting', () => (countsOf(tap.text).at(-1) ?? 0) > before + 20);
  await rest(200);
  tap.close();
  const counts = countsOf(tap.text);
  const expected = counts.map((_, index) => index + 1);
  assert.equal(counts, expected, 'every number once, in order, across the takeover');
  assert.is(tap.gaps, 0);
}

function countsOf(text: string): number[] {
  return [...text.matchAll(/^count (\d+)\r$/gm)].map(([, number]) => Number(number));
}

testIf(linux, 'a shell command goes on through a takeover', whatLinuxNeeds(), async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mirror-linux-'));
  const pool = new TestPool(2_000);
  try {
    await within(400_000, 'linux takeover', play(pool, folder));
  } finally {
    await pool.close();
    rmSync(folder, { recursive: true });
  }
});

linux.run();
