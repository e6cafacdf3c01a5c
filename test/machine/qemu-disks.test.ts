/** Disks of a QEMU machine: who may write to an image when, and a guest that reads from it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { DiskSpec, Machine, MachineSpec } from '../../src/machine/machine.js';
import { onceUnlocked } from '../../src/machine/qemu/disk-lock.js';
import { QemuMachine } from '../../src/machine/qemu/qemu-machine.js';
import { whatKvmNeeds, whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { skip, testIf, until, within } from '../within.js';
import { apply, captureBuffer, Transcript } from './acceptance.js';
import { ticksSaying, writeBootDisk } from './boot-disk.js';

const MEMORY_BYTES = 32 << 20;
const DISK_BYTES = 1 << 20;
const TEXT = ' from the disk';
const EPOCHS_MIN = 10;
const EPOCHS_MAX = 200;
const TEST_MS_MAX = 60_000;
const disks = suite('disks of qemu machines');
const dir = mkdtempSync(join(tmpdir(), 'mirror-disks-'));
const path = join(dir, 'boot.raw');
disks.before(() => writeBootDisk(path, DISK_BYTES, TEXT));
disks.after(() => rmSync(dir, { recursive: true }));

type Driver = readonly ['tcg' | 'kvm', 'savedev' | 'colo'];

function make([accelerator, name]: Driver, disk: Partial<DiskSpec>): Promise<Machine> {
  const boot: DiskSpec = {
    ...{ id: 'root', path, format: 'raw', readOnly: false, model: 'auto', boot: true },
  };
  const spec: MachineSpec = {
    ...{ memoryBytes: MEMORY_BYTES, kernel: null, initrd: null, cmdline: '', nics: [] },
    disks: [{ ...boot, ...disk }],
  };
  return QemuMachine.create(spec, { accelerator, driver: { name, why: 'asked for' } });
}

interface Pair {
  readonly owner: Machine;
  readonly standby: Machine;
  readonly deviceState: Uint8Array;
  readonly before: Transcript;
  readonly after: Transcript;
}

/** An owner that stands still after some epochs, and a standby that has all of them. */
async function mirrored(driver: Driver, disk: Partial<DiskSpec>): Promise<Pair> {
  const [owner, standby] = [await make(driver, disk), await make(driver, disk)];
  const [before, after] = [new Transcript(owner), new Transcript(standby)];
  const pages = captureBuffer(owner.info.pageCount);
  await owner.boot();
  await standby.standBy();
  await owner.capture(pages, { from: 0, count: owner.info.pageCount });
  apply(pages, standby);
  for (let epoch = 0; epoch < EPOCHS_MAX; epoch += 1) {
    if (epoch >= EPOCHS_MIN && ticksSaying(TEXT, before.text).length > 1) break;
    owner.resume();
    await sleep(100);
    await owner.pause();
    await owner.capture(pages, null);
    apply(pages, standby);
  }
  return { owner, standby, deviceState: pages.deviceState, before, after };
}

/** Takes over while the last owner is still there, which then ends. */
async function takenOver(driver: Driver, disk: Partial<DiskSpec>): Promise<void> {
  const { owner, standby, deviceState, before, after } = await mirrored(driver, disk);
  try {
    await standby.restore(deviceState);
    standby.resume();
    await sleep(1_000);
    const reads = disk.readOnly === true;
    if (!reads) assert.is(after.text, '', 'two may not write to one image');
    await owner.stop();
    await until(10_000, 'ticks', () => ticksSaying(TEXT, after.text).length >= 3);
    const ticks = ticksSaying(TEXT, before.text + after.text);
    assert.equal(ticks, ticks.map((_, index) => index + 1), 'none missing, none twice');
    assert.not.match(before.text + after.text, 'FAULT');
    await standby.pause();
  } finally {
    await Promise.all([owner.stop(), standby.stop()]);
  }
}

const missing = whatQemuNeeds();
const onQemu = (name: string, run: () => Promise<void>): void =>
  testIf(disks, name, missing, () => within(TEST_MS_MAX, name, run()));

const TCG: Driver = ['tcg', 'savedev'];
const KVM: Driver = ['kvm', 'colo'];

onQemu('a takeover goes on from an IDE disk once its last owner has let go of it', () =>
  takenOver(TCG, { model: 'ide' }),
);

onQemu('a read-only disk is nobody’s alone', () => takenOver(TCG, { readOnly: true }));

const noKvm = whatKvmNeeds();
const onKvm = (name: string, run: () => Promise<void>): void =>
  missing === '' && noKvm !== '' ? skip(disks, name, noKvm) : onQemu(name, run);

onKvm('in COLO the owner holds its disk all the time', () => takenOver(KVM, { model: 'virtio' }));

onQemu('a second VM does not get an image that a first one has', async () => {
  const [first, second] = [await make(TCG, {}), await make(TCG, {})];
  const printed = new Transcript(first);
  try {
    await first.boot();
    first.resume();
    await until(20_000, 'a tick', () => ticksSaying(TEXT, printed.text).length > 0);
    const why = await second.boot().then(
      () => 'it was booted',
      (error: Error) => error.message,
    );
    assert.match(why, /Failed to get "write" lock/);
  } finally {
    await first.pause();
    await Promise.all([first.stop(), second.stop()]);
  }
});

disks('waiting for a lock ends, and anything else is told at once', async () => {
  const locked = (): Promise<void> => Promise.reject(new Error('Failed to get "write" lock'));
  let tries = 0;
  await onceUnlocked(async () => {
    tries += 1;
    if (tries < 3) await locked();
  });
  assert.is(tries, 3);
  const codeOf = async (work: Promise<void>): Promise<unknown> =>
    work.then(() => '', (error: { code?: string; message: string }) => error.code ?? error.message);
  assert.is(await codeOf(onceUnlocked(locked, 50)), 'DISK_LOCKED');
  assert.is(await codeOf(onceUnlocked(() => Promise.reject(new Error('other')))), 'other');
});

disks.run();
