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

export class SerialBridge implements SerialPort {
  onBytes: ((bytes: Uint8Array) => void) | null = null;
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

  constructor(nic: MachineSpec['nics'][number], engine: Engine, enter: Enter) {
    this.id = nic.id;
    this.mac = nic.mac;
    this.engine = engine;
    this.enter = enter;
    const device = engine.cpu.devices.net ?? engine.cpu.devices.virtio_net;
    if (!device) throw new EngineError('v86 has no network device');
    setMac(device, parseMac(nic.mac));
    engine.emulator.add_listener('net0-send', (frame: Uint8Array) => {
      // v86 goes on using the buffer.
      this.output.push(Uint8Array.from(frame));
    });
  }

  receive(frame: Uint8Array): void {
    if (frame.length < FRAME_BYTES_MIN || frame.length > FRAME_BYTES_MAX) return;
    this.enter(() => this.engine.emulator.bus.send('net0-receive', frame));
  }

  handOut(): void {
    if (this.output.length === 0) return;
    const frames = this.output;
    this.output = [];
    for (const frame of frames) this.onFrame?.(frame);
  }
}
