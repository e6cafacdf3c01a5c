/** Serial port and NIC of a v86 machine: what a slice puts out is handed out when it ends. */
import type { MachineSpec, NicPort, SerialPort } from '../machine.js';
import type { Engine } from './engine.js';
import type { V86Nic } from './internals.js';
import { EngineError } from './engine.js';

type Enter = (work: () => void) => void;

/** What the guest has not read yet; beyond it input is dropped, as by a real serial port. */
const SERIAL_INPUT_BYTES_MAX = 64 << 10;
const FRAME_BYTES_MAX = 1514 + 4;
const FRAME_BYTES_MIN = 14;
/** A ne2k keeps frames that the guest has not read in a ring of pages, and drops what is more. */
const RING_PAGE_BYTES = 256;
const RING_HEADER_BYTES = 4;
const FRAMES_WAITING_MAX = 1_024;

export class SerialBridge implements SerialPort {
  onBytes: ((bytes: Uint8Array) => void) | null = null;
  /** What the guest has not read yet is part of the device. */
  readonly waitingBytes = 0;
  private readonly engine: Engine;
  private readonly enter: Enter;
  private output: number[] = [];

  constructor(engine: Engine, enter: Enter) {
    this.engine = engine;
    this.enter = enter;
    engine.emulator.add_listener('serial0-output-byte', (byte: number) => {
      this.output.push(byte);
    });
  }

  receive(bytes: Uint8Array): void {
    const { uart0 } = this.engine.cpu.devices;
    this.enter(() => {
      for (const byte of bytes) {
        if (uart0.input.length >= SERIAL_INPUT_BYTES_MAX) return;
        uart0.data_received(byte);
      }
    });
  }

  handOut(): void {
    if (this.output.length === 0) return;
    const bytes = Uint8Array.from(this.output);
    this.output = [];
    // v86 collects the line for its debug log, without end if the guest sends no newline.
    this.engine.cpu.devices.uart0.current_line = '';
    this.onBytes?.(bytes);
  }
}

function parseMac(text: string): Uint8Array {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) throw new EngineError(`bad MAC: ${text}`);
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16));
}

/** v86 has no option for it: the address is put where the device keeps it. */
function setMac(device: V86Nic, mac: Uint8Array): void {
  device.mac.set(mac);
  if (!device.memory) return;
  mac.forEach((byte, i) => device.memory!.fill(byte, i * 2, i * 2 + 2));
}

export class NicBridge implements NicPort {
  readonly id: string;
  readonly mac: string;
  onFrame: ((frame: Uint8Array) => void) | null = null;
  private readonly engine: Engine;
  private readonly enter: Enter;
  private output: Uint8Array[] = [];
  /** Came in faster than the device takes them. */
  private waiting: Uint8Array[] = [];
  private readonly device: V86Nic;

  constructor(nic: MachineSpec['nics'][number], engine: Engine, enter: Enter) {
    this.id = nic.id;
    this.mac = nic.mac;
    this.engine = engine;
    this.enter = enter;
    const device = engine.cpu.devices.net ?? engine.cpu.devices.virtio_net;
    if (!device) throw new EngineError('v86 has no network device');
    this.device = device;
    setMac(device, parseMac(nic.mac));
    engine.emulator.add_listener('net0-send', (frame: Uint8Array) => {
      // v86 goes on using the buffer.
      this.output.push(Uint8Array.from(frame));
    });
  }

  receive(frame: Uint8Array): void {
    if (frame.length < FRAME_BYTES_MIN || frame.length > FRAME_BYTES_MAX) return;
    if (this.waiting.length === 0 && this.fits(frame)) this.enter(() => this.deliver(frame));
    else if (this.waiting.length < FRAMES_WAITING_MAX) this.waiting.push(frame);
  }

  /** A slice of the guest begins: it may have read some of what was delivered before. */
  beginSlice(): void {
    let count = 0;
    for (; count < this.waiting.length && this.fits(this.waiting[count]); count += 1)
      this.deliver(this.waiting[count]);
    if (count > 0) this.waiting.splice(0, count);
  }

  get hasWaiting(): boolean {
    return this.waiting.length > 0;
  }

  /** One page stays free: a ring filled to the last looks empty to the device. */
  private fits(frame: Uint8Array): boolean {
    const { pstart, pstop, curpg, boundary } = this.device;
    if (pstart === undefined || pstop === undefined) return true;
    if (curpg === undefined || boundary === undefined) return true;
    const free = boundary > curpg ? boundary - curpg : pstop - curpg + boundary - pstart;
    return free > Math.ceil((frame.length + RING_HEADER_BYTES) / RING_PAGE_BYTES) + 1;
  }

  private deliver(frame: Uint8Array): void {
    this.engine.emulator.bus.send('net0-receive', frame);
  }

  handOut(): void {
    if (this.output.length === 0) return;
    const frames = this.output;
    this.output = [];
    for (const frame of frames) this.onFrame?.(frame);
  }
}
