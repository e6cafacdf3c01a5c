/** The epoch loop with a machine that does as the test says. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Encoder } from '../../src/checkpoint/encoder.js';
import { EpochLoop, type EncodedPart } from '../../src/checkpoint/epoch-loop.js';
import { RunControl } from '../../src/checkpoint/run-control.js';
import { Gate } from '../../src/gate/gate.js';
import { CaptureOverflow } from '../../src/machine/capture-overflow.js';
import {
  PAGE_BYTES,
  type CaptureBuffer,
  type CaptureResult,
  type Machine,
} from '../../src/machine/machine.js';
import { until, within } from '../within.js';

const PAGES = 8_192;
const TEST_MS_MAX = 20_000;
const loops = suite('epoch loop');

/** What the machine does with its next capture. */
type Fate = 'works' | 'pause fails' | 'capture fails';

class FakeMachine {
  readonly info = { pageCount: PAGES };
  readonly log: string[] = [];
  onStill: ((ms: number) => void) | null = null;
  fate: Fate = 'works';
  dirty = 3;
  goesOn = false;
  running = false;

  resume(): void {
    this.running = true;
    this.log.push('resume');
  }

  pause(): Promise<void> {
    this.log.push('pause');
    if (this.fate === 'pause fails') return Promise.reject(new Error('no pause'));
    this.running = false;
    return Promise.resolve();
  }

  capture(into: CaptureBuffer, _also: unknown, andGoOn: boolean): Promise<CaptureResult> {
    if (this.fate === 'capture fails') return Promise.reject(new Error('no capture'));
    const room = into.pageIndices.length;
    this.log.push(`capture into ${room}`);
    if (this.dirty > room) return Promise.reject(new CaptureOverflow(this.dirty, room));
    for (let i = 0; i < this.dirty; i += 1) into.pageIndices[i] = i;
    into.pageBytes.fill(1, 0, this.dirty * PAGE_BYTES);
    into.pageCount = this.dirty;
    into.deviceState = new Uint8Array(8);
    const goesOn = andGoOn && this.goesOn;
    if (goesOn) this.running = true;
    const counts = { pageCount: this.dirty, dirtyPageCount: this.dirty, missedPageCount: null };
    return Promise.resolve({ ...counts, findMs: 0, copyMs: 0, goesOn });
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}

interface Rig {
  readonly machine: FakeMachine;
  readonly control: RunControl;
  readonly failed: string[];
  readonly parts: EncodedPart[];
  /** One epoch, from its order to the end of its encoding. */
  epoch(hold?: boolean): Promise<void>;
}

async function withRig(play: (rig: Rig) => Promise<void>): Promise<void> {
  const machine = new FakeMachine();
  const control = new RunControl(machine as unknown as Machine);
  const gate = new Gate({ bytesMax: 1 << 20, onFull: () => {}, onDrained: () => {} });
  const encoder = await Encoder.create(PAGES);
  const failed: string[] = [];
  const parts: EncodedPart[] = [];
  const loop = new EpochLoop(machine as unknown as Machine, control, gate, encoder, {
    captured: () => {},
    encoded: (part) => void parts.push(part),
    failed: (_epoch, error) => void failed.push(error.message),
    missed: () => {},
  });
  let epoch = 0;
  const run = (hold = false): Promise<void> => {
    epoch += 1;
    loop.order({ generation: 1, epoch, base: epoch === 1, final: false, hold });
    return loop.idle();
  };
  control.release('core');
  try {
    await within(TEST_MS_MAX, 'the play', play({ machine, control, failed, parts, epoch: run }));
  } finally {
    await encoder.close();
  }
}

loops('captures that fail cost their epochs, and nothing of those to come', () =>
  withRig(async ({ machine, failed, parts, epoch }) => {
    await epoch();
    assert.equal(failed, []);
    // More often than there are slots.
    for (let round = 0; round < 4; round += 1) {
      machine.fate = 'capture fails';
      await epoch();
      machine.fate = 'works';
      await until(2_000, 'the VM goes on', () => machine.running);
    }
    assert.equal(failed, Array.from({ length: 4 }, () => 'no capture'));
    const before = parts.length;
    await epoch();
    assert.ok(parts.length > before, 'encoded');
    assert.is(parts.at(-1)?.epoch, 6);
  }),
);

loops('a machine that cannot be paused has failed: it is let be', () =>
  withRig(async ({ machine, control, failed, epoch }) => {
    await epoch();
    machine.fate = 'pause fails';
    await epoch();
    assert.equal(failed, ['no pause']);
    machine.log.length = 0;
    control.release('capture');
    control.release('core');
    await epoch();
    assert.equal(failed, ['no pause', 'no pause']);
    assert.equal(machine.log, []);
    assert.is(await control.stop(), undefined);
  }),
);

loops('a capture that does not fit the small slot is made anew into the large one', () =>
  withRig(async ({ machine, failed, parts, epoch }) => {
    await epoch();
    machine.log.length = 0;
    machine.dirty = 5_000;
    await epoch();
    await epoch();
    assert.equal(failed, []);
    const captures = machine.log.filter((line) => line.startsWith('capture'));
    // The second storm goes straight to the large one.
    const [small, large] = ['capture into 4096', `capture into ${PAGES}`];
    assert.equal(captures, [small, large, large]);
    assert.is(parts.at(-1)?.epoch, 3);
  }),
);

loops('a machine that goes on by itself is not told to; if held otherwise, it is paused', () =>
  withRig(async ({ machine, control, epoch }) => {
    machine.goesOn = true;
    await epoch();
    machine.log.length = 0;
    await epoch();
    assert.equal(machine.log, ['pause', 'capture into 4096']);
    assert.is(machine.running, true);
    machine.log.length = 0;
    await control.hold('gate');
    await epoch();
    await until(2_000, 'it stands still', () => !machine.running);
    assert.equal(machine.log, ['pause', 'capture into 4096', 'pause']);
    control.release('gate');
    await until(2_000, 'it runs', () => machine.running);
    machine.log.length = 0;
    await epoch(true);
    assert.equal(machine.log, ['pause', 'capture into 4096']);
    assert.is(machine.running, false);
  }),
);

loops.run();
