/**
 * The primary's half of a VM process: the running machine, its gate, its NICs, and the epoch loop
 * once there is a standby to feed. Made by a boot or by a promotion.
 */
import { Encoder } from '../checkpoint/encoder.js';
import { EpochLoop, type EpochListener, type EpochOrder } from '../checkpoint/epoch-loop.js';
import { Pacer } from '../checkpoint/pacer.js';
import { RunControl } from '../checkpoint/run-control.js';
import { writeImage } from './aside.js';
import { Gate } from '../gate/gate.js';
import type { OutputLog } from '../gate/output-log.js';
import type { InputState } from '../gate/serial-input.js';
import { SerialRing } from '../gate/serial-ring.js';
import type { Machine } from '../machine/machine.js';
import { announceFrame } from '../network/announce.js';
import type { NicLink, ReadyLink } from '../network/nic-link.js';

const GATE_BYTES_MAX = 32 << 20;
/** Networks forget and lose frames: a new owner says where the VM is more than once. */
const ANNOUNCE_AT_MS = [0, 100, 500, 2_000];

export interface PrimaryOptions {
  readonly nics: readonly { id: string; mac: string }[];
  /** A cable for each of them. */
  readonly links: readonly ReadyLink[];
  readonly epochMs: number | null;
}

export interface PrimaryEvents extends EpochListener {
  epochDue(): void;
  gateFull(): void;
  gateDrained(): void;
  poweredOff(): void;
  machineFailed(error: Error): void;
}

export class PrimarySide {
  readonly machine: Machine;
  readonly gate: Gate;
  readonly pacer: Pacer;
  readonly serial: SerialRing;
  loop: EpochLoop | null = null;
  private readonly control: RunControl;
  private readonly links: NicLink[] = [];
  private readonly options: PrimaryOptions;
  private readonly events: PrimaryEvents;
  private encoder: Promise<Encoder> | null = null;
  private stopped = false;

  constructor(
    machine: Machine,
    serial: SerialRing,
    options: PrimaryOptions,
    events: PrimaryEvents,
  ) {
    this.machine = machine;
    this.serial = serial;
    this.options = options;
    this.events = events;
    this.control = new RunControl(machine);
    this.gate = new Gate({
      bytesMax: GATE_BYTES_MAX,
      onFull: () => {
        this.control.holdSoon('gate');
        events.gateFull();
      },
      onDrained: () => {
        this.control.release('gate');
        events.gateDrained();
      },
    });
    this.pacer = new Pacer({ fixedMs: options.epochMs }, () => events.epochDue());
    this.connectPorts();
  }

  run(): void {
    if (this.stopped) return;
    this.control.release('core');
    this.control.release('capture');
    this.pacer.start();
  }

  pause(): void {
    this.control.holdSoon('core');
  }

  /** Output that the old owner may not have released goes out again, under the new one's name. */
  adopt(outputs: OutputLog): void {
    this.gate.adopt(outputs);
  }

  /** Tells the networks where the VM's addresses are now. */
  announce(): void {
    for (const delayMs of ANNOUNCE_AT_MS) {
      const timer = setTimeout(() => {
        if (this.stopped) return;
        this.options.nics.forEach((nic, index) => this.links[index]?.send(announceFrame(nic.mac)));
      }, delayMs);
      timer.unref();
    }
  }

  /** Orders an epoch; the encoder starts with the first one. */
  order(order: EpochOrder): void {
    this.encoder ??= Encoder.create(this.machine.info.pageCount);
    this.encoder.then(
      (encoder) => {
        this.loop ??= new EpochLoop(this.machine, this.control, this.gate, encoder, this.events);
        this.loop.order(order);
      },
      (error: unknown) => {
        this.events.failed(order.epoch, error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  /** The VM stands still from here on; nothing of it has left since the gate was closed. */
  async keepImage(dir: string): Promise<void> {
    this.pacer.stop();
    await this.control.hold('core');
    await writeImage(dir, this.machine);
  }

  /** Nothing leaves this VM any more, and it does not run again. */
  async kill(): Promise<void> {
    this.stopped = true;
    this.gate.dispose();
    this.pacer.stop();
    for (const link of this.links) link.close();
    await this.control.stop();
    const encoder = await this.encoder?.catch(() => null);
    await encoder?.close();
  }

  /** Serial input by its place in the stream; goes in once, however often it is sent. */
  serialIn(offset: number, bytes: Uint8Array): InputState {
    const { input } = this.gate;
    const applied = input.offer(offset, bytes);
    return { applied, acked: input.ackedOffset };
  }

  linkUp(): boolean[] {
    return this.links.map((link) => link.connected);
  }

  private connectPorts(): void {
    const { machine, gate } = this;
    machine.serial.onBytes = (bytes) => gate.serialOut(bytes);
    gate.onSerial = (offset, bytes) => this.serial.append(offset, bytes);
    gate.history = this.serial;
    gate.input.waitingBytes = () => machine.serial.waitingBytes;
    gate.input.onInput = (bytes) => machine.serial.receive(bytes);
    gate.onFrame = (index, frame) => this.links[index]?.send(frame);
    machine.onPowerOff = () => this.events.poweredOff();
    machine.onFailure = (error) => this.events.machineFailed(error);
    this.options.nics.forEach((nic, index) => {
      const link = this.options.links[index]?.plugIn();
      const port = machine.nics[index];
      if (!port || !link) throw new Error(`the machine has no NIC ${nic.id}`);
      port.onFrame = (frame) => gate.nicOut(index, frame);
      link.onFrame = (frame) => port.receive(frame);
      this.links.push(link);
    });
  }
}
