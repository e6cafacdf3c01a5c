/** The embedded engine: the acceptance suite in both ways of tracking, and what is v86's alone. */
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Machine, MachineSpec } from '../../src/machine/machine.js';
import { DeviceStateError } from '../../src/machine/v86/device-state.js';
import { V86Machine } from '../../src/machine/v86/v86-machine.js';
import { within } from '../within.js';
import {
  apply,
  assertSameRam,
  builtinSpec,
  captureBuffer,
  machineAcceptance,
  pairOf,
  ramOf,
} from './acceptance.js';

const BLOCK_BYTES = 4096;

const patched = {
  create: (spec: MachineSpec): Promise<Machine> => V86Machine.create(spec, { auditEvery: 1 }),
  keepsTime: true,
};
const compared = {
  create: (spec: MachineSpec): Promise<Machine> =>
    V86Machine.create(spec, { auditEvery: 0, tracking: 'compare' }),
  keepsTime: true,
};

machineAcceptance('v86, patched', patched).run();
machineAcceptance('v86, compare', compared).run();

const v86 = suite('v86');

/** How many 4 KiB blocks of two device states differ. */
function changedBlocks(a: Uint8Array, b: Uint8Array): number {
  let changed = 0;
  for (let at = 0; at < Math.max(a.length, b.length); at += BLOCK_BYTES) {
    const left = Buffer.from(a.subarray(at, at + BLOCK_BYTES));
    if (!left.equals(b.subarray(at, at + BLOCK_BYTES))) changed += 1;
  }
  return changed;
}

v86('the audit finds a page written behind the dirty map, and captures it', () =>
  within(20_000, 'audit', (async () => {
    const create = (spec: MachineSpec): Promise<Machine> =>
      V86Machine.create(spec, { auditEvery: 3 });
    const pair = await pairOf({ create, keepsTime: true }, builtinSpec());
    const page = pair.active.info.pageCount - 7;
    await pair.epoch(10);
    ramOf(pair.active)[page * 4096 + 9] ^= 1;
    const counts: (number | null)[] = [];
    for (let i = 0; i < 6; i += 1) counts.push((await pair.epoch(10)).missedPageCount);
    assert.is(counts.reduce<number>((sum, count) => sum + (count ?? 0), 0), 1);
    assert.is(counts.filter((count) => count !== null).length, 2);
    assertSameRam(pair.active, pair.standby);
    await pair.close();
  })()));

v86('the device state is small and changes in place', () =>
  within(20_000, 'device state', (async () => {
    const pair = await pairOf(patched, builtinSpec());
    await pair.epoch(200);
    let previous = pair.pages.deviceState;
    for (let i = 0; i < 20; i += 1) {
      await pair.epoch(15);
      const { deviceState } = pair.pages;
      assert.ok(deviceState.length < 128 << 10, `${deviceState.length} bytes`);
      assert.ok(changedBlocks(previous, deviceState) <= 4);
      previous = deviceState;
    }
    await pair.close();
  })()));

v86('a restored state is saved as the same bytes, but for the time stamp counter', () =>
  within(20_000, 'round trip', (async () => {
    const pair = await pairOf(patched, builtinSpec());
    await pair.epoch(200);
    const saved = pair.pages.deviceState.slice();
    await pair.standby.restore(saved);
    const again = captureBuffer(16);
    await pair.standby.capture(again, null);
    assert.is(again.pageCount, 0, 'restoring writes no guest memory');
    assert.is(again.deviceState.length, saved.length);
    // v86 rounds its time stamp counter, eight bytes, up to the clock's resolution.
    const differing = saved.filter((byte, i) => byte !== again.deviceState[i]).length;
    assert.ok(differing <= 8, `${differing} bytes differ`);
    await pair.close();
  })()));

v86('a damaged device state is refused', () =>
  within(20_000, 'damage', (async () => {
    const pair = await pairOf(patched, builtinSpec());
    await pair.epoch(50);
    const good = pair.pages.deviceState;
    const refuses = async (bytes: Uint8Array): Promise<void> => {
      let refused: unknown = null;
      await pair.standby.restore(bytes).catch((error: unknown) => {
        refused = error;
      });
      assert.instance(refused, DeviceStateError);
    };
    await refuses(new Uint8Array(10));
    await refuses(good.subarray(0, good.length - 4096));
    const huge = good.slice();
    new DataView(huge.buffer).setUint32(12, 0xffffffff, true);
    await refuses(huge);
    const wrongVersion = good.slice();
    wrongVersion[4] = 99;
    await refuses(wrongVersion);
    await pair.standby.restore(good);
    await pair.close();
  })()));

v86('each machine has its own time, and the process keeps its own', () =>
  within(20_000, 'clocks', (async () => {
    const pair = await pairOf(patched, builtinSpec());
    await pair.epoch(50);
    const other = await V86Machine.create(builtinSpec(), { auditEvery: 0 });
    await other.boot();
    other.resume();
    const [realAt, dateAt] = [process.hrtime.bigint(), Date.now()];
    const performanceAt = performance.now();
    await sleep(300);
    const realMs = Number(process.hrtime.bigint() - realAt) / 1e6;
    assert.ok(Math.abs(performance.now() - performanceAt - realMs) < 20);
    assert.ok(Math.abs(Date.now() - dateAt - realMs) < 20);
    assert.ok(pair.active.guestClockLagMs() >= 295, 'the paused machine stood still');
    assert.ok(other.guestClockLagMs() < 5, 'the running one did not');
    await other.stop();
    await pair.close();
  })()));

v86('what others wrote into a standby is not dirty', () =>
  within(20_000, 'standby', (async () => {
    const pair = await pairOf(compared, builtinSpec());
    await pair.epoch(100);
    apply(pair.pages, pair.standby);
    await pair.standby.restore(pair.pages.deviceState);
    const none = captureBuffer(4);
    await pair.standby.capture(none, null);
    assert.is(none.pageCount, 0);
    await pair.close();
  })()));

v86.run();
