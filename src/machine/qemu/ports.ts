/**
 * The serial port and the NICs of a QEMU machine, on the sockets that QEMU has opened. They may
 * be used before there is a QEMU: what comes then is lost, as on a machine that is off.
 */
import type { Socket } from 'node:net';
import { StreamFrameReader, writeFrame } from '../../network/stream-framing.js';
import type { NicPort, SerialPort } from '../machine.js';
import { hasUntaken, unreadBytes } from './libc.js';
import { QemuError } from './qemu-error.js';

const NIC_QUEUE_BYTES_MAX = 1 << 20;
const SERIAL_INPUT_BYTES_MAX = 64 << 10;
const SERIAL_LOOK_MS = 1;
const SERIAL_HOLD_MS_MAX = 5;
const DRAIN_MS_MAX = 2_000;

export function fdOf(socket: Socket): number {
  const { _handle } = socket as unknown as { _handle: { fd: number } | null };
  return _handle?.fd ?? -1;
}

/** Settles once all that QEMU has written so far was handed on. */
export async function drain(sockets: readonly Socket[]): Promise<void> {
  const endAt = Date.now() + DRAIN_MS_MAX;
  for (;;) {
    const open = sockets.map(fdOf).filter((fd) => fd >= 0);
    if (open.every((fd) => unreadBytes(fd) === 0)) return;
    if (Date.now() > endAt) throw new QemuError('QEMU_DRAIN', 'output of the guest does not end');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/**
 * Input goes in one byte at a time: QEMU has either taken a byte into the device, or not, and only
 * the kernel's "nothing is left" tells which. None goes in while the VM is stopped and captured, or
 * it would not be known whether the device state holds it.
 */
export class QemuSerial implements SerialPort {
  onBytes: ((bytes: Uint8Array) => void) | null = null;
  private socket: Socket | null = null;
  private queue: number[] = [];
  private inFlight = false;
  private held = false;
  private timer: NodeJS.Timeout | null = null;

  attach(socket: Socket): void {
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => this.onBytes?.(new Uint8Array(bytes)));
    socket.on('error', () => {});
  }

  get waitingBytes(): number {
    return this.queue.length + (this.taken() ? 0 : 1);
  }

  receive(bytes: Uint8Array): void {
    if (!this.socket || this.queue.length + bytes.length > SERIAL_INPUT_BYTES_MAX) return;
    this.queue.push(...bytes);
    this.pump();
  }

  /** Before the VM is stopped. A device that is full takes nothing however long one waits. */
  async hold(): Promise<void> {
    this.held = true;
    const endAt = Date.now() + SERIAL_HOLD_MS_MAX;
    while (!this.taken() && Date.now() < endAt)
      await new Promise((resolve) => setImmediate(resolve));
  }

  /** The VM runs. */
  letGo(): void {
    this.held = false;
    this.pump();
  }

  close(): void {
    if (this.timer) clearTimeout(this.timer);
    this.socket = null;
  }

  private taken(): boolean {
    if (!this.inFlight) return true;
    const fd = this.socket ? fdOf(this.socket) : -1;
    if (fd >= 0) this.inFlight = hasUntaken(fd);
    return !this.inFlight;
  }

  private pump(): void {
    if (this.timer || this.held || !this.socket) return;
    if (this.taken()) {
      const next = this.queue.shift();
      if (next === undefined) return;
      this.inFlight = true;
      this.socket.write(Uint8Array.of(next));
    }
    this.timer = setTimeout(() => {
      this.timer = null;
      this.pump();
    }, SERIAL_LOOK_MS);
  }
}

export class QemuNic implements NicPort {
  readonly id: string;
  readonly mac: string;
  onFrame: ((frame: Uint8Array) => void) | null = null;
  private socket: Socket | null = null;

  constructor({ id, mac }: { id: string; mac: string }) {
    this.id = id;
    this.mac = mac;
  }

  attach(socket: Socket): void {
    this.socket = socket;
    const reader = new StreamFrameReader((frame) => this.onFrame?.(frame));
    socket.on('data', (chunk: Buffer) => reader.feed(chunk));
    socket.on('error', () => {});
  }

  receive(frame: Uint8Array): void {
    if (this.socket?.writable) writeFrame(this.socket, frame, NIC_QUEUE_BYTES_MAX);
  }

  close(): void {
    this.socket = null;
  }
}
