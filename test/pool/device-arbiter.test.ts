/** A raw shared device as an arbiter, and its own: torn copies, crashes, stale reads. */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MirrorError } from '../../src/core/errors.js';
import { DeviceFile } from '../../src/pool/device-file.js';
import { formatDevice } from '../../src/pool/device-format.js';
import { DeviceLayout } from '../../src/pool/device-layout.js';
import { chooseCopy, COPY_BYTES, type SlotCopy } from '../../src/pool/slot.js';
import { testIf, until, within } from '../within.js';
import { arbiterAcceptance, proposal } from './arbiter-acceptance.js';
import { DeviceRig, LoopDevice, whatLoopNeeds } from './device-rig.js';

const device = suite('device arbiter');
const STANDARD = { hosts: null, vms: null, force: false };

arbiterAcceptance(device, () => DeviceRig.make());

function given(name: string, play: (rig: DeviceRig) => Promise<void>, bytes?: number): void {
  device(name, async () => {
    const rig = await DeviceRig.make(bytes);
    try {
      await within(60_000, name, play(rig));
    } finally {
      await rig.close();
    }
  });
}

async function refusal(work: Promise<unknown>): Promise<MirrorError> {
  const error = await work.then(
    () => null,
    (cause: unknown) => cause,
  );
  if (error instanceof MirrorError) return error;
  throw new Error('it was not refused');
}

async function revisionOf(rig: DeviceRig, vm: string): Promise<number> {
  const reply = await rig.connect(5_000).read(vm);
  if (reply.outcome !== 'ok') throw new Error(`no answer: ${rig.faults.join()}`);
  return reply.record?.revision ?? 0;
}

/** The number that a host has on the device; '' if none. */
function claimOf(rig: DeviceRig, host: number): string {
  const path = join(rig.stateDir(host), 'device-arbiter', layoutOf(rig).id, 'host');
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n')[0] : '';
}

/** The bytes of the device, changed behind everybody's back. */
function scribble(rig: DeviceRig, offset: number, bytes: Buffer): void {
  const fd = openSync(rig.path, 'r+');
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

function layoutOf(rig: DeviceRig): DeviceLayout {
  const layout = DeviceLayout.decode(readFileSync(rig.path).subarray(0, COPY_BYTES));
  if (!layout) throw new Error('no layout');
  return layout;
}

given('either copy of a slot may be torn: the record stands; both: it is refused', async (rig) => {
  const vm = randomUUID();
  const arbiter = rig.connect(5_000, undefined, 0);
  for (const revision of [0, 1])
    assert.is((await arbiter.cas(vm, revision, proposal(vm, revision + 1))).outcome, 'ok');
  const layout = layoutOf(rig);
  const [place] = layout.placesFor(vm);
  // The first lane of that host was free.
  const slot = Number(claimOf(rig, 0)) * layout.lanes;
  const slotAt = layout.placeOffset(place) + slot * 2 * COPY_BYTES;
  const whole = readFileSync(rig.path).subarray(slotAt, slotAt + 2 * COPY_BYTES);
  for (const copy of [0, 1]) {
    scribble(rig, slotAt, whole);
    scribble(rig, slotAt + copy * COPY_BYTES + 512, Buffer.alloc(512, 0xa5));
    scribble(rig, slotAt + copy * COPY_BYTES + 50, Buffer.from('torn'));
    assert.is(await revisionOf(rig, vm), 2);
  }
  scribble(rig, slotAt, Buffer.from('torn'));
  assert.equal(await arbiter.read(vm), { outcome: 'unknown' });
  assert.match(rig.faults.join(), /damaged in both copies/);
  scribble(rig, slotAt, whole);
  assert.is((await arbiter.cas(vm, 2, proposal(vm, 3))).outcome, 'ok', 'repaired');
});

device('a write replaces first the copy that is not the newest', () => {
  const nothing = { value: null, standing: null, past: [] };
  const block = { revision: 1, ballot: 1, accepted: 0, ...nothing };
  const copy = (sequence: number): SlotCopy => ({ sequence, block });
  assert.is(chooseCopy('empty', 'empty')?.replaceFirst, 0);
  assert.is(chooseCopy('bad', 'empty')?.replaceFirst, 0, 'the very first write was torn');
  assert.is(chooseCopy(copy(7), 'bad')?.replaceFirst, 1);
  assert.is(chooseCopy('bad', copy(7))?.replaceFirst, 0);
  assert.is(chooseCopy(copy(8), copy(7))?.replaceFirst, 1);
  assert.is(chooseCopy(copy(7), copy(8))?.sequence, 8);
  assert.is(chooseCopy('bad', 'bad'), null);
  assert.is(chooseCopy('empty', 'bad'), null);
});

given('a device that shows an older state than was just written decides nothing', async (rig) => {
  const vm = randomUUID();
  const image = join(rig.dir, 'older');
  assert.is((await rig.connect(5_000, undefined, 0).cas(vm, 0, proposal(vm, 1))).outcome, 'ok');
  copyFileSync(rig.path, image);
  const stale = rig.connect(
    2_000,
    {
      open: async (path) => {
        const [fresh, old] = [await DeviceFile.open(path), await DeviceFile.open(image)];
        let written = false;
        return {
          read: (at, bytes) => (written ? old : fresh).read(at, bytes),
          write: async (at, bytes) => {
            await fresh.write(at, bytes);
            written = true;
          },
          close: async () => {
            await Promise.all([fresh.close(), old.close()]);
          },
        };
      },
    },
    0,
  );
  assert.equal(await stale.cas(vm, 1, proposal(vm, 2)), { outcome: 'unknown' });
  assert.match(rig.faults.join(), /what this host has written is not what it reads/);
  assert.is(await revisionOf(rig, vm), 1, 'a ballot was begun, and nothing accepted');
});

given('a writer that sleeps through other changes wins nothing when it wakes', async (rig) => {
  const vm = randomUUID();
  // Before each of the writes of one change, in both copies.
  for (let write = 1; write <= 6; write += 1) {
    const from = await revisionOf(rig, vm);
    const { arbiter, asleep, wake } = sleeper(rig, write);
    const late = arbiter.cas(vm, from, proposal(vm, from + 1, 'sleeper'));
    await asleep;
    const awake = rig.connect(10_000, undefined, 1);
    await awake.cas(vm, from, proposal(vm, from + 1, 'awake'));
    const next = await revisionOf(rig, vm);
    assert.is(next, from + 1);
    const won = await awake.cas(vm, next, proposal(vm, next + 1, 'awake'));
    assert.is(won.outcome, 'ok');
    wake();
    const told = await late;
    const read = await awake.read(vm);
    assert.is(read.outcome === 'ok' && read.record?.revision, from + 2);
    // What was accepted before it fell asleep has won, and it is told so.
    if (write > 4) assert.is(told.outcome, 'ok', `before write ${write}`);
    else if (write < 4) assert.is(told.outcome, 'conflict', `before write ${write}`);
  }
});

/** An arbiter that falls asleep before its n-th write of slots. */
function sleeper(rig: DeviceRig, before: number) {
  let wake = (): void => {};
  let fell = (): void => {};
  const awake = new Promise<void>((resolve) => (wake = resolve));
  const asleep = new Promise<void>((resolve) => (fell = resolve));
  let writes = 0;
  const placeOffset = layoutOf(rig).placeOffset(0);
  const arbiter = rig.connect(
    30_000,
    {
      open: async (path) => {
        const file = await DeviceFile.open(path);
        return {
          read: (at, bytes) => file.read(at, bytes),
          close: () => file.close(),
          write: async (at, bytes) => {
            if (at >= placeOffset) writes += 1;
            if (at >= placeOffset && writes === before) {
              fell();
              await awake;
            }
            await file.write(at, bytes);
          },
        };
      },
    },
    0,
  );
  return { arbiter, asleep, wake: () => wake() };
}

given('processes that are killed in mid-write leave a record that goes on', async (rig) => {
  const vm = randomUUID();
  const entry = fileURLToPath(new URL('./device-writer.js', import.meta.url));
  let told = 0;
  for (let round = 0; round < 12; round += 1) {
    const host = round % 3;
    const child = spawn(process.execPath, [entry, rig.path, rig.stateDir(host), vm], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await until(10_000, 'it writes', () => output.split('\n').length > 3);
    await new Promise((resolve) => setTimeout(resolve, round * 3));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const lines = output.split('\n').slice(0, -1);
    told = Math.max(told, ...lines.map(Number));
    const stands = await revisionOf(rig, vm);
    assert.ok(stands === told || stands === told + 1, `${stands} after ${told}`);
    told = stands;
  }
  assert.ok(told > 30, `${told} changes`);
  assert.equal(rig.faults, []);
});

given('no two hosts ever get the same slots, and no more than were asked for', async (rig) => {
  const vm = randomUUID();
  const hosts = Array.from({ length: 9 }, (_, host) => rig.connect(5_000, undefined, host));
  const replies = await Promise.all(hosts.map((host) => host.read(vm)));
  const served = replies.filter(({ outcome }) => outcome === 'ok').length;
  const claimed = hosts.map((_, host) => claimOf(rig, host)).filter((number) => number !== '');
  assert.is(new Set(claimed).size, claimed.length);
  assert.is(claimed.length, served);
  assert.ok(served < 9);
  assert.match(rig.faults.join(), /made for 8 hosts/);
});

given('a copy of a state directory does not write where the original does', async (rig) => {
  const vm = randomUUID();
  await rig.connect(5_000, undefined, 0).read(vm);
  cpSync(rig.stateDir(0), rig.stateDir(1), { recursive: true });
  const { arbiter, asleep, wake } = sleeper(rig, 3);
  const late = arbiter.cas(vm, 0, proposal(vm, 1, 'original'));
  await asleep;
  const copy = rig.connect(5_000, undefined, 1);
  assert.is((await copy.cas(vm, 0, proposal(vm, 1, 'copy'))).outcome, 'ok');
  assert.is.not(claimOf(rig, 0), claimOf(rig, 1));
  wake();
  assert.is((await late).outcome, 'conflict');
});

given(
  'VMs share the device until it is full, each in one place of its own',
  async (rig) => {
    const { places } = layoutOf(rig);
    const vms = Array.from({ length: places + 1 }, () => randomUUID());
    const creators = [0, 1].flatMap((host) =>
      vms.map((vm) => rig.connect(20_000, undefined, host).cas(vm, 0, proposal(vm, 1, `h${host}`))),
    );
    const replies = await Promise.all(creators);
    assert.is(replies.filter(({ outcome }) => outcome === 'ok').length, places);
    assert.match(rig.faults.join(), /no place for another VM/);
    const found = await Promise.all(vms.map((vm) => rig.connect(20_000).read(vm)));
    const there = found.filter((reply) => reply.outcome === 'ok' && reply.record !== null);
    assert.is(there.length, places);
    for (const [index, reply] of found.entries())
      if (reply.outcome === 'ok' && reply.record) assert.is(reply.record.vmUuid, vms[index]);
  },
  1 << 20,
);

given('only what is empty is formatted, and an arbiter is left as it is', async (rig) => {
  const vm = randomUUID();
  await rig.connect(5_000).cas(vm, 0, proposal(vm, 1));
  await formatDevice(rig.path, STANDARD);
  assert.is(await revisionOf(rig, vm), 1);
  const other = join(rig.dir, 'disk');
  writeFileSync(other, Buffer.alloc(2 << 20));
  const marked = openSync(other, 'r+');
  writeSync(marked, 'EFI PART', (2 << 20) - 512);
  closeSync(marked);
  assert.match((await refusal(formatDevice(other, STANDARD))).message, /is not empty/);
  const forced = await formatDevice(other, { ...STANDARD, force: true });
  assert.is(forced.places, 7);
  writeFileSync(join(rig.dir, 'small'), Buffer.alloc(64 << 10));
  const small = formatDevice(join(rig.dir, 'small'), STANDARD);
  assert.match((await refusal(small)).message, /are needed for 8 hosts and 1 VMs/);
  const absent = formatDevice(join(rig.dir, 'absent'), STANDARD);
  assert.match((await refusal(absent)).message, /it is not there/);
  await formatDevice(rig.path, { ...STANDARD, force: true });
  assert.is(await revisionOf(rig, vm), 0, 'made anew');
});

testIf(device, 'a block device does as a file does', whatLoopNeeds(), async () => {
  const rig = await DeviceRig.make();
  const loop = new LoopDevice();
  try {
    await formatDevice(loop.path, STANDARD);
    const vm = randomUUID();
    const there = { open: () => DeviceFile.open(loop.path) };
    const racers = [0, 1, 2].map((host) => rig.connect(5_000, there, host));
    const replies = await Promise.all(
      racers.map((racer, host) => racer.cas(vm, 0, proposal(vm, 1, `h${host}`))),
    );
    assert.is(replies.filter(({ outcome }) => outcome === 'ok').length, 1);
    assert.is(replies.filter(({ outcome }) => outcome === 'conflict').length, 2);
  } finally {
    loop.close();
    await rig.close();
  }
});

device.run();
