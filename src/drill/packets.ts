/**
 * Builders and parsers of the few packets that the guest's clients speak: Ethernet, ARP, IPv4, ICMP
 * echo, UDP. A parser answers `null` to whatever is malformed, fragmented, or fails its checksum.
 */

/** An Ethernet segment, or one end of it: a `stream:` connection, a machine's NIC, a switch. */
export interface EthernetPort {
  send(frame: Uint8Array): void;
  onFrame: ((frame: Uint8Array) => void) | null;
}

export type Mac = Uint8Array;
/** An IPv4 address as an unsigned number, first octet highest. */
export type Ip = number;

export const BROADCAST: Mac = new Uint8Array(6).fill(255);
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERNET_BYTES = 14;
const IP_BYTES = 20;
const UDP_BYTES = 8;
const ARP_BYTES = 28;
const PROTOCOL_ICMP = 1;
const PROTOCOL_UDP = 17;

export interface Ethernet {
  to: Mac;
  from: Mac;
  type: number;
  payload: Uint8Array;
}
export interface Arp {
  operation: 'request' | 'reply';
  senderMac: Mac;
  senderIp: Ip;
  targetMac: Mac;
  targetIp: Ip;
}
export interface Ipv4 {
  from: Ip;
  to: Ip;
  protocol: number;
  payload: Uint8Array;
}
export interface Udp {
  fromPort: number;
  toPort: number;
  payload: Uint8Array;
}
export interface Echo {
  kind: 'request' | 'reply';
  id: number;
  seq: number;
  payload: Uint8Array;
}
/** Who talks to whom: the addresses of both ends. */
export interface Ends {
  fromMac: Mac;
  toMac: Mac;
  fromIp: Ip;
  toIp: Ip;
}

export function parseMac(text: string): Mac {
  const parts = text.split(':').map((part) => Number.parseInt(part, 16));
  if (parts.length !== 6 || parts.some((part) => !(part >= 0 && part <= 255)))
    throw new RangeError(`not a MAC address: ${text}`);
  return Uint8Array.from(parts);
}

export function parseIp(text: string): Ip {
  const parts = text.split('.');
  const fits = (part: string): boolean => /^\d{1,3}$/.test(part) && Number(part) <= 255;
  if (parts.length !== 4 || !parts.every(fits)) throw new RangeError(`not an IP address: ${text}`);
  return parts.reduce((ip, part) => ip * 256 + Number(part), 0);
}

export function formatIp(ip: Ip): string {
  return [24, 16, 8, 0].map((shift) => (ip >>> shift) & 255).join('.');
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The Internet checksum of `bytes`, on top of `sum`; 0 over what carries its own. */
export function checksum(bytes: Uint8Array, sum = 0): number {
  let total = sum;
  for (let i = 0; i + 1 < bytes.length; i += 2) total += (bytes[i] << 8) | bytes[i + 1];
  if (bytes.length % 2 === 1) total += bytes[bytes.length - 1] << 8;
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total ^ 0xffff;
}

function pseudoSum(from: Ip, to: Ip, udpBytes: number): number {
  const halves = [from >>> 16, from & 0xffff, to >>> 16, to & 0xffff];
  return halves.reduce((sum, half) => sum + half, PROTOCOL_UDP + udpBytes);
}

export function buildEthernet({ to, from, type, payload }: Ethernet): Uint8Array {
  const frame = new Uint8Array(Math.max(60, ETHERNET_BYTES + payload.length));
  frame.set(to, 0);
  frame.set(from, 6);
  viewOf(frame).setUint16(12, type);
  frame.set(payload, ETHERNET_BYTES);
  return frame;
}

export function parseEthernet(frame: Uint8Array): Ethernet | null {
  if (frame.length < ETHERNET_BYTES) return null;
  return {
    to: frame.subarray(0, 6),
    from: frame.subarray(6, 12),
    type: viewOf(frame).getUint16(12),
    payload: frame.subarray(ETHERNET_BYTES),
  };
}

export function buildArp(arp: Arp): Uint8Array {
  const payload = new Uint8Array(ARP_BYTES);
  const view = viewOf(payload);
  view.setUint32(0, 0x00010800);
  view.setUint32(4, arp.operation === 'request' ? 0x06040001 : 0x06040002);
  payload.set(arp.senderMac, 8);
  view.setUint32(14, arp.senderIp);
  payload.set(arp.targetMac, 18);
  view.setUint32(24, arp.targetIp);
  const to = arp.operation === 'request' ? BROADCAST : arp.targetMac;
  return buildEthernet({ to, from: arp.senderMac, type: ETHERTYPE_ARP, payload });
}

export function parseArp(ethernet: Ethernet): Arp | null {
  const bytes = ethernet.payload;
  if (ethernet.type !== ETHERTYPE_ARP || bytes.length < ARP_BYTES) return null;
  const view = viewOf(bytes);
  const operation = view.getUint32(4) - 0x06040000;
  if (view.getUint32(0) !== 0x00010800 || (operation !== 1 && operation !== 2)) return null;
  return {
    operation: operation === 1 ? 'request' : 'reply',
    senderMac: bytes.slice(8, 14),
    senderIp: view.getUint32(14),
    targetMac: bytes.slice(18, 24),
    targetIp: view.getUint32(24),
  };
}

function buildIpv4(ends: Ends, protocol: number, payload: Uint8Array): Uint8Array {
  const packet = new Uint8Array(IP_BYTES + payload.length);
  const view = viewOf(packet);
  packet[0] = 0x45;
  view.setUint16(2, packet.length);
  packet[8] = 64;
  packet[9] = protocol;
  view.setUint32(12, ends.fromIp);
  view.setUint32(16, ends.toIp);
  view.setUint16(10, checksum(packet.subarray(0, IP_BYTES)));
  packet.set(payload, IP_BYTES);
  const { toMac: to, fromMac: from } = ends;
  return buildEthernet({ to, from, type: ETHERTYPE_IPV4, payload: packet });
}

export function parseIpv4(ethernet: Ethernet): Ipv4 | null {
  const bytes = ethernet.payload;
  if (ethernet.type !== ETHERTYPE_IPV4 || bytes.length < IP_BYTES || bytes[0] !== 0x45) return null;
  const view = viewOf(bytes);
  const total = view.getUint16(2);
  const fragmented = (view.getUint16(6) & 0x3fff) !== 0;
  if (total < IP_BYTES || total > bytes.length || fragmented) return null;
  if (checksum(bytes.subarray(0, IP_BYTES)) !== 0) return null;
  return {
    from: view.getUint32(12),
    to: view.getUint32(16),
    protocol: bytes[9],
    payload: bytes.subarray(IP_BYTES, total),
  };
}

export function buildUdp(ends: Ends, udp: Udp): Uint8Array {
  const datagram = new Uint8Array(UDP_BYTES + udp.payload.length);
  const view = viewOf(datagram);
  view.setUint16(0, udp.fromPort);
  view.setUint16(2, udp.toPort);
  view.setUint16(4, datagram.length);
  datagram.set(udp.payload, UDP_BYTES);
  const sum = checksum(datagram, pseudoSum(ends.fromIp, ends.toIp, datagram.length));
  view.setUint16(6, sum === 0 ? 0xffff : sum);
  return buildIpv4(ends, PROTOCOL_UDP, datagram);
}

export function parseUdp(ip: Ipv4): Udp | null {
  const bytes = ip.payload;
  if (ip.protocol !== PROTOCOL_UDP || bytes.length < UDP_BYTES) return null;
  const view = viewOf(bytes);
  const length = view.getUint16(4);
  if (length < UDP_BYTES || length > bytes.length) return null;
  const datagram = bytes.subarray(0, length);
  const sums = view.getUint16(6) !== 0;
  if (sums && checksum(datagram, pseudoSum(ip.from, ip.to, length)) !== 0) return null;
  return {
    fromPort: view.getUint16(0),
    toPort: view.getUint16(2),
    payload: datagram.subarray(UDP_BYTES),
  };
}

export function buildEcho(ends: Ends, echo: Echo): Uint8Array {
  const message = new Uint8Array(8 + echo.payload.length);
  const view = viewOf(message);
  message[0] = echo.kind === 'request' ? 8 : 0;
  view.setUint16(4, echo.id);
  view.setUint16(6, echo.seq);
  message.set(echo.payload, 8);
  view.setUint16(2, checksum(message));
  return buildIpv4(ends, PROTOCOL_ICMP, message);
}

export function parseEcho(ip: Ipv4): Echo | null {
  const bytes = ip.payload;
  if (ip.protocol !== PROTOCOL_ICMP || bytes.length < 8 || checksum(bytes) !== 0) return null;
  if ((bytes[0] !== 8 && bytes[0] !== 0) || bytes[1] !== 0) return null;
  const view = viewOf(bytes);
  return {
    kind: bytes[0] === 8 ? 'request' : 'reply',
    id: view.getUint16(4),
    seq: view.getUint16(6),
    payload: bytes.subarray(8),
  };
}
