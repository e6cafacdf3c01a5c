/**
 * What every engine must do, whatever it is: `machineAcceptance(name, factory)` registers the
 * suite. The guest is the built-in one, which prints a numbered line a tick and checks its own
 * memory.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { suite } from 'uvu';
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import { CaptureOverflow } from '../../src/machine/capture-overflow.js';
import type {
  CaptureBuffer,
  CaptureResult,
  Machine,
  MachineSpec,
} from '../../src/machine/machine.js';
import { PAGE_BYTES } from '../../src/machine/machine.js';
import { until, within } from '../within.js';

export const GUEST_MAC = '02:00:00:00:00:17';
const MEMORY_BYTES = 32 << 20;
const TEST_MS_MAX = 60_000;
const BOOT_MS_MAX = 20_000;

export interface MachineFactory {
  /** A machine that checks every capture against all of memory, if the engine can. */
  create(spec: MachineSpec): Promise<Machine>;
  /** Pauses are given back to the guest's clock; else they are lost to it, and `lag` says so. */
  readonly keepsTime: boolean;
  /** A software KVM emulates each instruction of a guest without paging: little work, then. */
  readonly slow?: boolean;
}

const CMDLINE = {
  usual: 'tick=10 dirty=256 pattern=sparse',
  slow: 'tick=10 dirty=8 pattern=sparse',
};

export function builtinSpec(cmdline = CMDLINE.usual): MachineSpec {
  const elf = readFileSync(new URL('../../src/guest/builtin.elf', import.meta.url));
  return {
    memoryBytes: MEMORY_BYTES,
    kernel: new Uint8Array(elf),
    initrd: null,
    cmdline,
    nics: [{ id: 'net0', mac: GUEST_MAC, model: 'auto' }],
    disks: [],
  };
}

function specFor({ slow = false }: MachineFactory, cmdline?: string): MachineSpec {
  return builtinSpec(cmdline ?? (slow ? CMDLINE.slow : CMDLINE.usual));
}

export function captureBuffer(pages: number): CaptureBuffer {
  return {
    pageIndices: new Uint32Array(new SharedArrayBuffer(pages * 4)),
    pageBytes: new Uint8Array(new SharedArrayBuffer(pages * PAGE_BYTES)),
    pageCount: 0,
    deviceState: new Uint8Array(0),
  };
}

export function ramOf(machine: Machine): Uint8Array {
  const { memory, offset, bytes } = machine.ram;
  return new Uint8Array(memory.buffer, offset, bytes);
}

export function hashOf(machine: Machine): string {
  return createHash('sha1').update(ramOf(machine)).digest('hex');
}

/** Byte for byte; far quicker than two hashes. */
export function assertSameRam(a: Machine, b: Machine, when = ''): void {
  const [left, right] = [ramOf(a), ramOf(b)];
  if (Buffer.compare(left, right) === 0) return;
  const at = left.findIndex((byte, i) => byte !== right[i]);
  assert.unreachable(`${when}: RAM differs, first in page ${Math.floor(at / PAGE_BYTES)}`);
}

/** Writes captured pages into the RAM of a standby. */
export function apply(from: CaptureBuffer, standby: Machine): void {
  const ram = ramOf(standby);
  for (let i = 0; i < from.pageCount; i += 1) {
    const page = from.pageBytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
    ram.set(page, from.pageIndices[i] * PAGE_BYTES);
  }
}

/** Everything that a machine prints. */
export class Transcript {
  text = '';

  constructor(machine: Machine) {
    machine.serial.onBytes = (bytes) => {
      this.text += Buffer.from(bytes).toString('latin1');
    };
  }
}

function tickCount(text: string): number {
  return text.match(/^tick /gm)?.length ?? 0;
}

/** Runs the guest until it has printed so many ticks in all, then pauses it. */
async function runUntilTicks(machine: Machine, printed: Transcript, ticks: number): Promise<void> {
  machine.resume();
  await until(BOOT_MS_MAX, `${ticks} ticks`, () => tickCount(printed.text) >= ticks);
  await machine.pause();
}

/** Fails unless the ticks are numbered from 1 without a gap and memory was never found damaged. */
export function assertTicks(text: string, atLeast: number): void {
  assert.not.match(text, /FAULT/);
  const ticks = [...text.matchAll(/^tick n=(\d+) /gm)].map((match) => Number(match[1]));
  assert.ok(ticks.length >= atLeast, `${ticks.length} ticks, not ${atLeast}`);
  const gap = ticks.findIndex((tick, i) => tick !== i + 1);
  assert.is(gap, -1, `tick ${gap + 1} is missing or doubled:\n${text.slice(0, 2000)}`);
}

interface Pair {
  readonly active: Machine;
  readonly standby: Machine;
  readonly pages: CaptureBuffer;
  readonly printed: Transcript;
  /** Lets the guest run, then captures and applies. */
  epoch(runMs: number): Promise<CaptureResult>;
  close(): Promise<void>;
}

export async function pairOf(factory: MachineFactory, spec: MachineSpec): Promise<Pair> {
  const active = await factory.create(spec);
  const standby = await factory.create(spec);
  const pages = captureBuffer(active.info.pageCount);
  const printed = new Transcript(active);
  await active.boot();
  await active.capture(pages, { from: 0, count: active.info.pageCount });
  apply(pages, standby);
  if (factory.slow) {
    // What its firmware does takes as long as hundreds of epochs.
    await runUntilTicks(active, printed, 1);
    await active.capture(pages, null);
    apply(pages, standby);
  }
  return {
    active,
    standby,
    pages,
    printed,
    epoch: async (runMs) => {
      active.resume();
      await sleep(runMs);
      await active.pause();
      const result = await active.capture(pages, null);
      apply(pages, standby);
      return result;
    },
    close: async () => {
      await active.stop();
      await standby.stop();
    },
  };
}

function arpRequest(targetIp: number[]): Uint8Array {
  const sender = [0x02, 0, 0, 0, 0, 0x99];
  const body = [0, 1, 8, 0, 6, 4, 0, 1, ...sender, 10, 77, 0, 9, 0, 0, 0, 0, 0, 0, ...targetIp];
  const frame = new Uint8Array(60);
  frame.set([255, 255, 255, 255, 255, 255, ...sender, 8, 6, ...body]);
  return frame;
}

/** Asks the guest for its address until it answers; returns the MAC it gives. */
async function askArp(machine: Machine): Promise<string> {
  const [nic] = machine.nics;
  let answer = '';
  nic.onFrame = (frame) => {
    if (frame[12] !== 8 || frame[13] !== 6 || frame[21] !== 2) return;
    answer = Buffer.from(frame.subarray(22, 28)).toString('hex').replace(/(..)(?=.)/g, '$1:');
  };
  await until(10_000, 'an ARP reply', () => {
    if (answer === '') nic.receive(arpRequest([10, 77, 0, 2]));
    return answer;
  });
  return answer;
}

type Register = (name: string, run: () => Promise<void>) => void;

function mirroring(test: Register, factory: MachineFactory): void {
  test('a standby fed by captures alone is equal after each of 200 epochs', async () => {
    const pair = await pairOf(factory, specFor(factory));
    for (let epoch = 1; epoch <= 200; epoch += 1) {
      const result = await pair.epoch(epoch % 4 === 0 ? 12 : 3);
      assert.is(result.missedPageCount ?? 0, 0, `pages missed in epoch ${epoch}`);
      assertSameRam(pair.active, pair.standby, `epoch ${epoch}`);
    }
    assertTicks(pair.printed.text, 10);
    await pair.close();
  });

  test('a takeover goes on exactly, whatever the epoch', async () => {
    for (let round = 0; round < (factory.slow ? 2 : 4); round += 1) {
      const pair = await pairOf(factory, specFor(factory));
      const epochs = 5 + Math.floor(Math.random() * 40);
      for (let i = 0; i < epochs; i += 1) await pair.epoch(7);
      const before = pair.printed.text;
      const after = new Transcript(pair.standby);
      // The active machine goes on for a while, unheard.
      pair.active.resume();
      await pair.standby.restore(pair.pages.deviceState);
      await runUntilTicks(pair.standby, after, 10);
      assertTicks(before + after.text, 10);
      await pair.close();
    }
  });

  test('a machine that took over is mirrored in its turn', async () => {
    const pair = await pairOf(factory, specFor(factory));
    for (let i = 0; i < 5; i += 1) await pair.epoch(7);
    const third = await factory.create(specFor(factory));
    const { standby, pages } = pair;
    const printed = new Transcript(standby);
    await standby.restore(pages.deviceState);
    // It runs for a while before it is captured at all.
    await runUntilTicks(standby, printed, 10);
    await standby.capture(pages, { from: 0, count: standby.info.pageCount });
    apply(pages, third);
    for (let epoch = 1; epoch <= 30; epoch += 1) {
      standby.resume();
      await sleep(7);
      await standby.pause();
      const { missedPageCount } = await standby.capture(pages, null);
      apply(pages, third);
      assert.is(missedPageCount ?? 0, 0, `pages missed in epoch ${epoch}`);
      assertSameRam(standby, third, `epoch ${epoch}`);
    }
    await third.stop();
    await pair.close();
  });

  test('frames go in and out under the MAC of the spec, also after a takeover', async () => {
    const pair = await pairOf(factory, specFor(factory));
    pair.active.resume();
    assert.is(await askArp(pair.active), GUEST_MAC);
    await pair.active.pause();
    await pair.active.capture(pair.pages, null);
    apply(pair.pages, pair.standby);
    await pair.standby.restore(pair.pages.deviceState);
    pair.standby.resume();
    assert.is(await askArp(pair.standby), GUEST_MAC);
    await pair.close();
  });
}

function capturing(test: Register, factory: MachineFactory): void {
  test('captured pages are ascending and each there once, dirty or asked for', async () => {
    const pair = await pairOf(factory, specFor(factory));
    await pair.epoch(100);
    await runUntilTicks(pair.active, pair.printed, tickCount(pair.printed.text) + 3);
    const range = { from: 256, count: 2_000 };
    const result = await pair.active.capture(pair.pages, range);
    const pages = [...pair.pages.pageIndices.subarray(0, result.pageCount)];
    assert.ok(result.dirtyPageCount > 0);
    assert.ok(pages.every((page, i) => i === 0 || page > pages[i - 1]));
    const inRange = pages.filter((page) => page >= range.from && page < range.from + range.count);
    const ram = ramOf(pair.active);
    for (let page = range.from; page < range.from + range.count; page += 1) {
      if (inRange.includes(page)) continue;
      const bytes = ram.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      assert.ok(bytes.every((byte) => byte === 0), `page ${page} is left out and not zero`);
    }
    assert.ok(result.pageCount <= result.dirtyPageCount + range.count);
    apply(pair.pages, pair.standby);
    assertSameRam(pair.active, pair.standby);
    await pair.close();
  });

  test('a capture that does not fit loses no page', async () => {
    const pair = await pairOf(factory, specFor(factory));
    await runUntilTicks(pair.active, pair.printed, 3);
    try {
      await pair.active.capture(captureBuffer(4), null);
      assert.unreachable('four pages are not enough');
    } catch (error) {
      assert.instance(error, CaptureOverflow);
    }
    await pair.active.capture(pair.pages, null);
    apply(pair.pages, pair.standby);
    assertSameRam(pair.active, pair.standby);
    await pair.close();
  });

  test('capture, restore and boot are refused in the wrong state', async () => {
    const machine = await factory.create(specFor(factory));
    const refused = async (work: () => Promise<unknown>): Promise<void> => {
      try {
        await work();
      } catch {
        return;
      }
      assert.unreachable('not refused');
    };
    await machine.boot();
    await refused(() => machine.boot());
    machine.resume();
    await refused(() => machine.capture(captureBuffer(4), null));
    await refused(() => machine.restore(new Uint8Array(4096)));
    await machine.stop();
  });
}

function timing(test: Register, factory: MachineFactory): void {
  test('pause and resume leave no trace but time', async () => {
    const machine = await factory.create(specFor(factory));
    const printed = new Transcript(machine);
    await machine.boot();
    await runUntilTicks(machine, printed, 1);
    for (let i = 0; i < 150; i += 1) {
      machine.resume();
      if (i % 3 !== 0) await sleep(i % 8);
      await machine.pause();
      const text = printed.text;
      const hash = i % 25 === 0 ? hashOf(machine) : '';
      if (hash) await sleep(30);
      assert.is(printed.text, text, 'a paused guest prints nothing');
      if (hash) assert.is(hashOf(machine), hash, 'a paused guest writes nothing');
    }
    assertTicks(printed.text, 5);
    await machine.stop();
  });

  test('guest time keeps up with real time at 25 ms epochs, or says by how much not', async () => {
    const pair = await pairOf(factory, specFor(factory));
    const lagsMs: number[] = [];
    const startedAtMs = performance.now();
    for (let epoch = 0; epoch < 120; epoch += 1) {
      await pair.epoch(25);
      if (epoch >= 60) lagsMs.push(pair.active.guestClockLagMs());
    }
    if (!factory.keepsTime) {
      const passedMs = performance.now() - startedAtMs;
      const [tick] = [...pair.printed.text.matchAll(/t=(\d+)/g)].slice(-1);
      const unseenMs = passedMs - Number(tick[1]) - pair.active.guestClockLagMs();
      // On a software KVM this guest cannot even measure how fast its time goes.
      const told = factory.slow || Math.abs(unseenMs) < 0.1 * passedMs;
      assert.ok(told, `${unseenMs.toFixed(0)} ms are not told`);
      assert.ok(pair.active.guestClockLagMs() > 0);
      await pair.close();
      return;
    }
    const [medianMs] = lagsMs.sort((a, b) => a - b).slice(30);
    assert.ok(medianMs <= 60, `lags by ${medianMs.toFixed(1)} ms`);
    pair.active.resume();
    await until(5_000, 'a lag of at most 5 ms', () => pair.active.guestClockLagMs() <= 5);
    const [last] = [...pair.printed.text.matchAll(/t=(\d+)/g)].slice(-1);
    assert.ok(Number(last[1]) > 2_500, 'the guest itself has seen the time');
    await pair.close();
  });

  test('work is counted while the guest runs, and only then', async () => {
    const machine = await factory.create(specFor(factory, 'tick=10 dirty=0 load=spin'));
    await machine.boot();
    machine.resume();
    await sleep(100);
    await machine.pause();
    const done = machine.workDone();
    assert.ok(done > 0);
    await sleep(30);
    assert.is(machine.workDone(), done);
    await machine.stop();
  });
}

function ending(test: Register, factory: MachineFactory): void {
  test('a guest that switches itself off is noticed once, also after a takeover', async () => {
    const pair = await pairOf(factory, specFor(factory));
    let told = 0;
    pair.active.onPowerOff = () => {
      told += 1;
    };
    pair.active.resume();
    await sleep(100);
    assert.is(told, 0);
    pair.active.serial.receive(Buffer.from('poweroff\n'));
    await until(5_000, 'the power-off', () => told > 0);
    await sleep(50);
    await pair.active.pause();
    await pair.active.capture(pair.pages, null);
    apply(pair.pages, pair.standby);
    let toldLater = 0;
    pair.standby.onPowerOff = () => {
      toldLater += 1;
    };
    await pair.standby.restore(pair.pages.deviceState);
    pair.standby.resume();
    await until(5_000, 'the power-off after the takeover', () => toldLater > 0);
    await sleep(50);
    assert.is(told, 1);
    assert.is(toldLater, 1);
    await pair.close();
  });

  test('a file that is no kernel is refused', async () => {
    const machine = await factory.create({ ...specFor(factory), kernel: new Uint8Array(20_000) });
    let message = '';
    await machine.boot().catch((error: Error) => {
      message = error.message;
    });
    assert.match(message, /kernel/);
    await machine.stop();
  });
}

export function machineAcceptance(name: string, engine: MachineFactory): Test {
  const tests = suite(name);
  const made: Machine[] = [];
  const factory: MachineFactory = {
    ...engine,
    create: async (spec) => {
      const machine = await engine.create(spec);
      made.push(machine);
      return machine;
    },
  };
  // A failed test leaves its machines running.
  tests.after.each(async () => {
    await Promise.all(made.splice(0).map((machine) => machine.stop()));
  });
  const register: Register = (title, run) => {
    tests(title, () => within(TEST_MS_MAX, title, run()));
  };
  mirroring(register, factory);
  capturing(register, factory);
  timing(register, factory);
  ending(register, factory);
  return tests;
}
