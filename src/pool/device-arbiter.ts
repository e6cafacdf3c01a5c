/**
 * A raw device that all hosts share, as the arbiter. Which steps are taken is decided in
 * `disk-paxos.ts`; here they are carried out. The device is opened for each operation: it may go
 * away and come back as another one.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal } from '../core/record.js';
import type { ArbiterOptions } from './arbiter.js';
import { DeviceFile } from './device-file.js';
import { DeviceLanes, type Lane } from './device-lanes.js';
import { DeviceLayout } from './device-layout.js';
import {
  changeByBallots,
  readByBallots,
  type DiskParty,
  type DiskResult,
  type DiskStep,
} from './disk-paxos.js';
import { chooseCopy, COPY_BYTES, decodeCopy, encodeCopy, type SlotRead } from './slot.js';

type Steps = Generator<DiskStep, ArbiterReply, DiskResult>;

const WAITING_MAX = 64;
const REST_MS = 4;
const REST_MS_MAX = 64;
/** A slot that is being written can look damaged; one that still does then is. */
const READS_MAX = 8;
const REREAD_MS = 5;

const UNKNOWN: ArbiterReply = { outcome: 'unknown' };

/** The steps that can fail in ways of their own; tests put others in their place. */
export interface DeviceIo {
  open(path: string): Promise<Pick<DeviceFile, 'read' | 'write' | 'close'>>;
}

export interface DeviceOptions extends ArbiterOptions {
  /** The host's: its processes share out there who writes which slot. */
  readonly stateDir: string;
}

export class DeviceArbiter {
  private readonly path: string;
  private readonly options: DeviceOptions;
  private readonly io: DeviceIo;
  private lanes: { readonly id: string; readonly lanes: DeviceLanes } | null = null;
  private waiting = 0;
  private closed = false;

  constructor(path: string, options: DeviceOptions, io: DeviceIo = DeviceFile) {
    this.path = path;
    this.options = options;
    this.io = io;
  }

  read(vmUuid: string): Promise<ArbiterReply> {
    return this.inTime(vmUuid, (party) => readByBallots(party, vmUuid));
  }

  cas(vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply> {
    return this.inTime(vmUuid, (party) =>
      changeByBallots(party, vmUuid, expectRevision, proposal),
    );
  }

  close(): void {
    this.closed = true;
  }

  /** Storage may hang for ever: the caller is told `unknown`, whatever becomes of the work. */
  private async inTime(vmUuid: string, begin: (party: DiskParty) => Steps): Promise<ArbiterReply> {
    if (this.closed || this.waiting >= WAITING_MAX) return UNKNOWN;
    this.waiting += 1;
    const endAtMs = performance.now() + this.options.deadlineMs;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<ArbiterReply>((resolve) => {
      timer = setTimeout(() => resolve(UNKNOWN), this.options.deadlineMs);
    });
    const done = this.onDevice(vmUuid, begin, endAtMs)
      .catch((error: unknown) => {
        this.options.onFault?.(error instanceof Error ? error.message : String(error));
        return UNKNOWN;
      })
      .finally(() => (this.waiting -= 1));
    const reply = await Promise.race([done, late]);
    clearTimeout(timer);
    return reply;
  }

  private async onDevice(
    vmUuid: string,
    begin: (party: DiskParty) => Steps,
    endAtMs: number,
  ): Promise<ArbiterReply> {
    const file = (await this.io.open(this.path)) as DeviceFile;
    let lane: Lane | null = null;
    try {
      const layout = await this.layoutOf(file);
      lane = await this.lanesOf(layout).acquire(file, endAtMs);
      if (!lane) return UNKNOWN;
      const { slot: self } = lane;
      const places = [...layout.placesFor(vmUuid)];
      const steps = begin({ self, slotCount: layout.slotCount, places });
      return await this.carryOut(steps, new PlaceIo(file, layout, self, this.path), endAtMs);
    } finally {
      // Only now: no write of ours is on its way any more.
      lane?.release();
      await file.close();
    }
  }

  /** Past the deadline nothing new is begun: what was begun stands on the device as it is. */
  private async carryOut(steps: Steps, io: PlaceIo, endAtMs: number): Promise<ArbiterReply> {
    let next = steps.next([]);
    while (next.done !== true) {
      if (performance.now() > endAtMs || this.closed) return UNKNOWN;
      next = steps.next(await io.take(next.value));
    }
    return next.value;
  }

  private async layoutOf(file: DeviceFile): Promise<DeviceLayout> {
    const layout = DeviceLayout.decode(await file.read(0, COPY_BYTES));
    if (layout) return layout;
    throw new MirrorError(
      'BAD_STATE',
      `${this.path} is no arbiter: nothing was written; see mirror arbiter init`,
    );
  }

  /** A device that a person made anew is another one. */
  private lanesOf(layout: DeviceLayout): DeviceLanes {
    const { lanes } = this;
    if (lanes?.id === layout.id) return lanes.lanes;
    const made = new DeviceLanes(this.options.stateDir, layout);
    this.lanes = { id: layout.id, lanes: made };
    return made;
  }
}

/** Carries out the steps of one operation by one writer. */
class PlaceIo {
  private readonly file: DeviceFile;
  private readonly layout: DeviceLayout;
  private readonly self: number;
  private readonly path: string;
  /** What stands in the own slot, by place. */
  private readonly own = new Map<number, Pick<SlotRead, 'sequence' | 'replaceFirst'>>();
  /** What this operation wrote there last. */
  private readonly written = new Map<number, number>();

  constructor(file: DeviceFile, layout: DeviceLayout, self: number, path: string) {
    this.file = file;
    this.layout = layout;
    this.self = self;
    this.path = path;
  }

  async take(step: DiskStep): Promise<DiskResult> {
    if (step.do === 'read') return this.read(step.place);
    if (step.do === 'write') await this.write(step);
    else await sleep(Math.random() * Math.min(REST_MS_MAX, REST_MS * step.round));
    return [];
  }

  private async read(place: number): Promise<DiskResult> {
    const { layout, file } = this;
    for (let tries = 1; ; tries += 1) {
      const bytes = await file.read(layout.placeOffset(place), layout.placeBytes);
      const slots = Array.from({ length: layout.slotCount }, (_, slot) =>
        this.slotOf(bytes, place, slot),
      );
      const damaged = slots.indexOf(null);
      if (damaged < 0) return this.checked(place, slots as SlotRead[]);
      if (tries === READS_MAX)
        throw new MirrorError(
          'BAD_RECORD',
          `${this.path}: slot ${damaged} of place ${place} is damaged in both copies: nothing ` +
            'was decided on it',
        );
      await sleep(REREAD_MS);
    }
  }

  private slotOf(bytes: Buffer, place: number, slot: number): SlotRead | null {
    const where = this.layout.whereOf(place, slot);
    const at = slot * 2 * COPY_BYTES;
    const copies = [at, at + COPY_BYTES].map((start) =>
      decodeCopy(bytes.subarray(start, start + COPY_BYTES), where),
    );
    return chooseCopy(copies[0], copies[1]);
  }

  /** What is read must hold what was written: else it is stale, or somebody else writes here. */
  private checked(place: number, slots: readonly SlotRead[]): DiskResult {
    const own = slots[this.self];
    const written = this.written.get(place);
    if (written !== undefined && own.sequence !== written)
      throw new MirrorError(
        'BAD_STATE',
        `${this.path}: what this host has written is not what it reads: either the device does ` +
          'not keep it, or another host uses a copy of this state directory; nothing was decided',
      );
    this.own.set(place, own);
    return slots.map(({ block }) => block);
  }

  private async write({ place, block }: Extract<DiskStep, { do: 'write' }>): Promise<void> {
    const { layout, self } = this;
    const { sequence, replaceFirst } = this.own.get(place) ?? { sequence: 0, replaceFirst: 0 };
    const copy = { sequence: sequence + 1, block };
    const bytes = encodeCopy(copy, layout.whereOf(place, self));
    const at = layout.placeOffset(place) + self * 2 * COPY_BYTES;
    for (const which of [replaceFirst, 1 - replaceFirst])
      await this.file.write(at + which * COPY_BYTES, bytes);
    this.own.set(place, { sequence: copy.sequence, replaceFirst: 0 });
    this.written.set(place, copy.sequence);
  }
}
