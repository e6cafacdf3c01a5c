/** COLO: its stream, what becomes of a VM when it breaks off, and the self-test that chooses it. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import fc from 'fast-check';
import { builtinKernel } from '../../src/guest/builtin.js';
import { ColoPages } from '../../src/machine/qemu/colo-pages.js';
import { shutDown } from '../../src/machine/qemu/libc.js';
import { fdOf } from '../../src/machine/qemu/ports.js';
import { QemuChooser } from '../../src/machine/qemu/qemu-choice.js';
import { QemuError } from '../../src/machine/qemu/qemu-error.js';
import { whatKvmNeeds, whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { QemuMachine } from '../../src/machine/qemu/qemu-machine.js';
import { skip, until, within } from '../within.js';
import {
  apply,
  assertSameRam,
  assertTicks,
  builtinSpec,
  pairOf,
  Transcript,
} from './acceptance.js';

const PAGE_BYTES = 4096;
const TEST_MS_MAX = 60_000;
const colo = suite('colo');

function leb128(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, value >> 7];
}

/** As QEMU encodes what changed. */
function changes(before: Uint8Array, after: Uint8Array): Buffer {
  const out: number[] = [];
  for (let at = 0; at < PAGE_BYTES;) {
    const from = at;
    while (at < PAGE_BYTES && before[at] === after[at]) at += 1;
    if (at === PAGE_BYTES) break;
    out.push(...leb128(at - from));
    const changed = at;
    while (at < PAGE_BYTES && before[at] !== after[at]) at += 1;
    out.push(...leb128(at - changed), ...after.subarray(changed, at));
  }
  return Buffer.from(out);
}

colo('pages are put together from what changed in them', () => {
  const byte = fc.nat(255);
  const edit = fc.tuple(fc.nat(PAGE_BYTES - 1), byte);
  fc.assert(
    fc.property(byte, fc.array(edit, { maxLength: 400 }), (fill, edits) => {
      const copy = Buffer.alloc(3 * PAGE_BYTES);
      const marks = new Uint8Array(3);
      const pages = new ColoPages(copy, marks);
      pages.filled(1, fill);
      marks.fill(0);
      const before = Buffer.alloc(PAGE_BYTES, fill);
      const after = Buffer.from(before);
      for (const [at, value] of edits) after[at] = value;
      const sent = changes(before, after);
      pages.changed(1, 1, sent, 0, sent.length);
      assert.is(Buffer.compare(copy.subarray(PAGE_BYTES, 2 * PAGE_BYTES), after), 0);
      assert.is(copy.subarray(0, PAGE_BYTES).some(Boolean), false);
      assert.equal([...marks], [0, 1, 0]);
    }),
    { numRuns: 300 },
  );
});

colo('changes that do not fit their page are refused, and touch no other', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (sent) => {
      const copy = Buffer.alloc(3 * PAGE_BYTES, 7);
      const pages = new ColoPages(copy, new Uint8Array(3));
      pages.filled(1, 7);
      try {
        pages.changed(1, 1, Buffer.from(sent), 0, sent.length);
      } catch (error) {
        assert.instance(error, QemuError);
      }
      assert.ok(copy.subarray(0, PAGE_BYTES).every((byte) => byte === 7));
      assert.ok(copy.subarray(2 * PAGE_BYTES).every((byte) => byte === 7));
    }),
    { numRuns: 2_000 },
  );
  const pages = new ColoPages(Buffer.alloc(PAGE_BYTES), new Uint8Array(1));
  assert.throws(() => pages.filled(1, 0), /beyond memory/);
  assert.throws(() => pages.changed(0, 1, Buffer.alloc(4), 0, 4), /never came whole/);
  assert.throws(() => pages.changed(0, 9, Buffer.alloc(4), 0, 4), /page encoding 9/);
});

colo('of the initial migration, pages are kept that QEMU keeps: those that come again', () => {
  const copy = Buffer.alloc(2 * PAGE_BYTES);
  const marks = new Uint8Array(2);
  const pages = new ColoPages(copy, marks);
  pages.beginInitial();
  pages.full(0, Buffer.alloc(PAGE_BYTES, 1), 0);
  pages.full(1, Buffer.alloc(PAGE_BYTES, 2), 0);
  pages.full(1, Buffer.alloc(PAGE_BYTES, 3), 0);
  pages.endInitial();
  assert.equal([pages.holds(0), pages.holds(1)], [false, true]);
  assert.equal([...marks], [0, 0]);
  pages.changed(1, 1, Buffer.from([1, 1, 9]), 0, 3);
  assert.equal([...copy.subarray(PAGE_BYTES, PAGE_BYTES + 3)], [3, 9, 3]);
  assert.equal([...marks], [0, 1]);
  assert.throws(() => pages.changed(0, 1, Buffer.from([1, 1, 9]), 0, 3), /never came whole/);
  pages.beginInitial();
  assert.is(pages.holds(1), false);
});

const factory = {
  create: (spec: Parameters<typeof QemuMachine.create>[0]) =>
    QemuMachine.create(spec, { accelerator: 'kvm', driver: { name: 'colo', why: 'asked for' } }),
  keepsTime: false,
  slow: true,
};

function socketOf(machine: unknown): Socket {
  const { driver } = machine as { driver: { driver: { socket: Socket } } };
  return driver.driver.socket;
}

type Break = 'in a checkpoint' | 'between two';

/** The stream to QEMU ends; the VM goes on, is captured by the other driver, and takes over. */
async function breaksOff(when: Break): Promise<void> {
  const pair = await pairOf(factory, builtinSpec('tick=10 dirty=8 pattern=sparse'));
  const { active, standby, pages, printed } = pair;
  try {
    for (let epoch = 0; epoch < 10; epoch += 1) await pair.epoch(20);
    assert.is(active.info.captureDriver.name, 'colo');
    active.resume();
    await until(5_000, 'it runs in COLO', () => socketOf(active));
    if (when === 'between two') shutDown(fdOf(socketOf(active)));
    await active.pause();
    if (when === 'in a checkpoint') shutDown(fdOf(socketOf(active)));
    let told = '';
    const order = { from: 0, count: active.info.pageCount };
    const failing = async (): Promise<void> => {
      await active.capture(pages, null, true);
      apply(pages, standby);
    };
    await failing().catch((error: Error) => {
      told = error.message;
    });
    assert.match(told, /QEMU closed|EPIPE|failed/);
    const { name, why } = active.info.captureDriver;
    assert.is(name, 'savedev');
    assert.match(why, /COLO failed/);
    active.resume();
    const ticks = printed.text.split('tick ').length;
    await until(15_000, 'the guest goes on', () => printed.text.split('tick ').length > ticks + 3);
    await active.pause();
    await active.capture(pages, order);
    apply(pages, standby);
    assertSameRam(active, standby);
    for (let epoch = 0; epoch < 5; epoch += 1) await pair.epoch(20);
    assertSameRam(active, standby);
    const before = printed.text;
    const after = new Transcript(standby);
    await standby.restore(pages.deviceState);
    standby.resume();
    const taken = (): boolean => after.text.split('tick ').length > 4;
    await until(15_000, 'the standby goes on', taken);
    assertTicks(before + after.text, 5);
  } finally {
    await pair.close();
  }
}

async function chooses(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mirror-choice-'));
  try {
    const chooser = new QemuChooser(builtinKernel, folder);
    const choice = await chooser.choose('kvm');
    assert.equal(choice, {
      accelerator: 'kvm',
      driver: { name: 'colo', why: 'its self-test passed' },
    });
    const kept = readFileSync(join(folder, 'qemu-self-test.json'), 'utf8');
    assert.match(kept, /self-test passed/);
    // A guest that does not come up: only what is remembered can say so much.
    const again = new QemuChooser(() => new Uint8Array(20_000), folder);
    assert.equal(await again.choose('kvm'), choice);
    const forgetful = new QemuChooser(() => new Uint8Array(20_000), null);
    let refusal = '';
    await forgetful.choose('kvm').catch((error: Error) => {
      refusal = error.message;
    });
    assert.match(refusal, /KVM is asked for, but its self-test failed/);
    assert.is((await chooser.choose('tcg')).driver.name, 'savedev');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const missing = whatQemuNeeds() || whatKvmNeeds();
const onKvm = (name: string, run: () => Promise<void>): void => {
  if (missing === '') colo(name, () => within(TEST_MS_MAX, name, run()));
  else skip(colo, name, missing);
};
onKvm('it breaks off between two checkpoints: the VM goes on', () => breaksOff('between two'));
onKvm('it breaks off in a checkpoint: the VM goes on', () => breaksOff('in a checkpoint'));
onKvm('the self-test chooses it, once for each QEMU and kernel', chooses);

colo.run();
