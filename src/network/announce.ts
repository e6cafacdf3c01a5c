/** Tells switches where a MAC is now: a broadcast reverse-ARP request, which needs no IP. */
import { NetworkError } from './network-error.js';

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;
const FRAME_BYTES_MIN = 60;
const ETHERTYPE_RARP = 0x8035;
const REVERSE_REQUEST = 3;

export function parseMac(mac: string): Buffer {
  if (!MAC.test(mac)) throw new NetworkError('BAD_MAC', `"${mac}" is not a MAC address`);
  return Buffer.from(mac.replaceAll(':', ''), 'hex');
}

/** The frame to send on the NIC's network, from `mac` to all. */
export function announceFrame(mac: string): Uint8Array {
  const address = parseMac(mac);
  const frame = Buffer.alloc(FRAME_BYTES_MIN);
  frame.fill(0xff, 0, 6);
  address.copy(frame, 6);
  frame.writeUInt16BE(ETHERTYPE_RARP, 12);
  frame.writeUInt16BE(1, 14); // hardware: Ethernet
  frame.writeUInt16BE(0x0800, 16); // protocol: IPv4
  frame.writeUInt8(6, 18);
  frame.writeUInt8(4, 19);
  frame.writeUInt16BE(REVERSE_REQUEST, 20);
  address.copy(frame, 22);
  address.copy(frame, 32);
  return frame;
}
