/**
 * The device state of a QEMU machine as bytes that travel: everything that a standby needs besides
 * RAM. Fixed fields first, so that little of it changes from epoch to epoch.
 */
import { QemuError } from './qemu-error.js';

const MAGIC = 0x514d5331;
const HEADER_BYTES = 24;
const POWERED_OFF = 1;

export interface DeviceImage {
  readonly poweredOff: boolean;
  /** How far guest time lagged behind real time, in `ms`. */
  readonly lagMs: number;
  /** The start of a migration stream, up to its devices. */
  readonly template: Uint8Array;
  /** What QEMU saved of its devices. */
  readonly devices: Uint8Array;
}

export function encodeDeviceImage(image: DeviceImage): Uint8Array {
  const { template, devices, poweredOff, lagMs } = image;
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + template.length + devices.length);
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(poweredOff ? POWERED_OFF : 0, 4);
  bytes.writeDoubleBE(lagMs, 8);
  bytes.writeUInt32BE(template.length, 16);
  bytes.writeUInt32BE(devices.length, 20);
  bytes.set(template, HEADER_BYTES);
  bytes.set(devices, HEADER_BYTES + template.length);
  return bytes;
}

export function decodeDeviceImage(state: Uint8Array): DeviceImage {
  const bytes = Buffer.from(state.buffer, state.byteOffset, state.length);
  if (bytes.length < HEADER_BYTES || bytes.readUInt32BE(0) !== MAGIC)
    throw new QemuError('DEVICE_STATE', 'not the device state of a QEMU machine');
  const templateEnd = HEADER_BYTES + bytes.readUInt32BE(16);
  const end = templateEnd + bytes.readUInt32BE(20);
  if (end !== bytes.length)
    throw new QemuError('DEVICE_STATE', `a device state of ${bytes.length} bytes, not ${end}`);
  return {
    poweredOff: (bytes.readUInt32BE(4) & POWERED_OFF) !== 0,
    lagMs: bytes.readDoubleBE(8),
    template: bytes.subarray(HEADER_BYTES, templateEnd),
    devices: bytes.subarray(templateEnd),
  };
}
