/** `mirror witness` as an arbiter, and what is its own: damaged files, strangers, frozen time. */
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { within } from '../within.js';
import { arbiterAcceptance, proposal } from './arbiter-acceptance.js';
import { WitnessRig } from './witness-rig.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const witness = suite('witness');

arbiterAcceptance(witness, () => WitnessRig.make());

function given(name: string, play: (rig: WitnessRig) => Promise<void>): void {
  witness(name, async () => {
    const rig = await WitnessRig.make();
    try {
      await within(30_000, name, play(rig));
    } finally {
      await rig.close();
    }
  });
}

given('a torn or damaged file: that VM is refused loudly, the others are served', async (rig) => {
  const [good, torn, foreign] = [randomUUID(), randomUUID(), randomUUID()];
  const before = rig.connect(5_000);
  for (const vm of [good, torn, foreign])
    assert.is((await before.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  before.close();
  await rig.kill();
  const path = (vm: string): string => join(rig.dir, `${vm}.json`);
  const whole = readFileSync(path(torn), 'utf8');
  writeFileSync(path(torn), whole.slice(0, whole.length / 2));
  writeFileSync(path(foreign), readFileSync(path(good)));
  // What a crash before the rename leaves behind is nobody's record.
  writeFileSync(`${path(good)}.new`, '{"vm":');
  await rig.start();
  assert.match(rig.stderr, `${torn}.json is damaged`);
  const after = rig.connect(1_000);
  for (const vm of [torn, foreign]) {
    assert.is((await after.read(vm)).outcome, 'unknown');
    assert.is((await after.cas(vm, 0, proposal(vm, 9))).outcome, 'unknown');
    assert.is((await after.cas(vm, 1, proposal(vm, 9))).outcome, 'unknown');
  }
  const served = await after.read(good);
  assert.is(served.outcome === 'ok' && served.record?.revision, 1);
  assert.is(readFileSync(path(torn), 'utf8'), whole.slice(0, whole.length / 2), 'kept as found');
  after.close();
});

given('frozen past the deadline: unknown; a late answer is not taken for another', async (rig) => {
  const vm = randomUUID();
  const client = rig.connect(300);
  assert.is((await client.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  rig.process?.kill('SIGSTOP');
  assert.is((await client.cas(vm, 1, proposal(vm, 2))).outcome, 'unknown');
  const pending = client.read(vm);
  rig.process?.kill('SIGCONT');
  await pending;
  const sure = rig.connect(5_000);
  const read = await sure.read(vm);
  assert.ok(read.outcome === 'ok' && read.record && read.record.revision >= 1);
  const next = await sure.cas(vm, read.record.revision, proposal(vm, 3));
  assert.is(next.outcome, 'ok');
  client.close();
  sure.close();
});

given('a change that raises no generation, or is of another VM, is refused', async (rig) => {
  const vm = randomUUID();
  const client = rig.connect(2_000);
  assert.is((await client.cas(vm, 0, proposal(vm, 5))).outcome, 'ok');
  for (const generation of [4, 5])
    assert.is((await client.cas(vm, 1, proposal(vm, generation))).outcome, 'conflict');
  assert.is((await client.cas(vm, 1, proposal(randomUUID(), 6))).outcome, 'unknown');
  const read = await client.read(vm);
  assert.is(read.outcome === 'ok' && read.record?.generation, 5);
  client.close();
});

given('strangers are hung up on, and nothing of theirs is kept', async (rig) => {
  const vm = randomUUID();
  const { vm: _, ...incomplete } = proposal(vm, 1);
  const cas = { id: 1, op: 'cas', vmUuid: vm, expectRevision: 0 };
  const lines = [
    'GET / HTTP/1.1\r\n\r\n',
    'x'.repeat(200 << 10),
    `${JSON.stringify({ ...cas, proposal: incomplete })}\n`,
    `${JSON.stringify({ ...cas, proposal: { ...proposal(vm, 1), generation: '7' } })}\n`,
    `${JSON.stringify({ ...cas, vmUuid: '../../etc/passwd', proposal: proposal(vm, 1) })}\n`,
    `${JSON.stringify({ id: 1, op: 'drop', vmUuid: vm })}\n`,
    `${JSON.stringify({ id: 1, op: 'read', vmUuid: vm })}\n`.repeat(5_000),
  ];
  for (const line of lines) await hungUpOn(rig.port, line);
  const client = rig.connect(5_000);
  assert.equal(await client.read(vm), { outcome: 'ok', record: null });
  const files = readdirSync(rig.dir).filter((name) => name.includes(vm.slice(0, 8)));
  assert.equal(files, []);
  client.close();
});

given('one folder has one witness, until that one is gone', async (rig) => {
  const args = ['witness', '--listen', '127.0.0.1:0', '--state-dir', rig.dir];
  rig.process?.kill('SIGSTOP');
  const second = spawnSync(process.execPath, [main, ...args], { timeout: 10_000 });
  assert.is(second.status, 4, second.stderr.toString());
  assert.match(second.stderr.toString(), 'another process works in');
  rig.process?.kill('SIGCONT');
  await rig.kill();
  await rig.start();
});

function hungUpOn(port: number, text: string): Promise<void> {
  return within(
    5_000,
    `the end of ${text.slice(0, 40)}`,
    new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => void socket.write(text));
      socket.on('error', () => {});
      socket.on('close', () => resolve());
      socket.resume();
    }),
  );
}

witness.run();
