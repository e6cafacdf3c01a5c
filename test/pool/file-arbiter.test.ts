/** A folder on shared storage as an arbiter, and its own: lost replies, sleepers, mounts. */
import { randomUUID } from 'node:crypto';
import { link, readdir, rename } from 'node:fs/promises';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FileArbiter, type FileSteps } from '../../src/pool/file-arbiter.js';
import type { Arbiter } from '../../src/pool/arbiter.js';
import { within } from '../within.js';
import { arbiterAcceptance, proposal, type ArbiterRig } from './arbiter-acceptance.js';

const file = suite('file arbiter');

class FileRig implements ArbiterRig {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-arbiter-'));
  readonly root = join(this.dir, 'shared');
  readonly faults: string[] = [];

  static async make(): Promise<FileRig> {
    const rig = new FileRig();
    mkdirSync(rig.root);
    await FileArbiter.init(rig.root);
    return rig;
  }

  connect(deadlineMs: number, steps?: FileSteps): FileArbiter {
    const onFault = (text: string): void => void this.faults.push(text);
    return new FileArbiter(this.root, { deadlineMs, onFault }, steps);
  }

  /** The storage takes the request and hangs before it answers. */
  async connectDeaf(deadlineMs: number): Promise<Arbiter> {
    const hang = async (from: string, to: string): Promise<void> => {
      await link(from, to);
      await new Promise((resolve) => setTimeout(resolve, 10 * deadlineMs));
    };
    const deaf = this.connect(deadlineMs, { link: hang });
    return {
      cas: (vm, revision, wish) => deaf.cas(vm, revision, wish),
      read: async () => ({ outcome: 'unknown' }),
      close: () => deaf.close(),
    };
  }

  /** The storage is gone: its mount point is an empty folder. */
  async kill(): Promise<void> {
    await rename(this.root, `${this.root}.away`);
    mkdirSync(this.root);
  }

  async start(): Promise<void> {
    rmSync(this.root, { recursive: true });
    await rename(`${this.root}.away`, this.root);
  }

  async close(): Promise<void> {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

arbiterAcceptance(file, () => FileRig.make());

function given(name: string, play: (rig: FileRig) => Promise<void>): void {
  file(name, async () => {
    const rig = await FileRig.make();
    try {
      await within(30_000, name, play(rig));
    } finally {
      await rig.close();
    }
  });
}

given('a link whose reply was lost is known by its inode', async (rig) => {
  const vm = randomUUID();
  const repeating = async (from: string, to: string): Promise<void> => {
    await link(from, to);
    await link(from, to);
  };
  const arbiter = rig.connect(5_000, { link: repeating });
  assert.is((await arbiter.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  const failing = rig.connect(5_000, {
    link: async (from, to) => {
      await link(from, to);
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    },
  });
  assert.is((await failing.cas(vm, 1, proposal(vm, 2))).outcome, 'ok');
  const never = rig.connect(5_000, {
    link: () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' })),
  });
  assert.is((await never.cas(vm, 2, proposal(vm, 3))).outcome, 'unknown');
  assert.match(rig.faults.join(), /EIO/);
});

given('a writer that slept through hundreds of changes wins nothing when it wakes', async (rig) => {
  const vm = randomUUID();
  let wake = (): void => {};
  const asleep = new Promise<void>((resolve) => (wake = resolve));
  let linking = (): void => {};
  const reached = new Promise<void>((resolve) => (linking = resolve));
  const sleeper = rig.connect(20_000, {
    link: async (from, to) => {
      linking();
      await asleep;
      await link(from, to);
    },
  });
  const late = sleeper.cas(vm, 0, proposal(vm, 1, 'sleeper'));
  await reached;
  const awake = rig.connect(5_000);
  for (let revision = 0; revision < 200; revision += 1)
    assert.is((await awake.cas(vm, revision, proposal(vm, revision + 1))).outcome, 'ok');
  const claims = (await readdir(join(rig.root, vm))).filter((name) => name.endsWith('.json'));
  assert.ok(claims.length < 80, `${claims.length} claims are kept`);
  assert.not.ok(claims.includes('000000000001.json'), 'its place is free again');
  wake();
  const reply = await late;
  assert.is(reply.outcome, 'conflict');
  assert.is(reply.outcome === 'conflict' && reply.record?.revision, 200);
  const read = await awake.read(vm);
  assert.is(read.outcome === 'ok' && read.record?.owner, 'a');
});

given('a damaged claim is refused loudly; no other folder is taken for an arbiter', async (rig) => {
  const [good, torn] = [randomUUID(), randomUUID()];
  const arbiter = rig.connect(5_000);
  for (const vm of [good, torn])
    assert.is((await arbiter.cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  writeFileSync(join(rig.root, torn, '000000000002.json'), '{"vm":"we');
  assert.equal(await arbiter.read(torn), { outcome: 'unknown' });
  assert.match(rig.faults.join(), /not JSON/);
  assert.is((await arbiter.read(good)).outcome, 'ok');
  const used = mkdtempSync(join(rig.dir, 'used-'));
  writeFileSync(join(used, 'holiday.jpg'), '');
  try {
    await FileArbiter.init(used);
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /is not empty/);
  }
});

file.run();
