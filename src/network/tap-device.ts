/**
 * A TAP interface on a bridge (Linux `Documentation/networking/tuntap.rst`): one read or write of
 * its descriptor is one Ethernet frame. It is gone with the descriptor.
 */
import { closeSync, constants, openSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import koffi from 'koffi';
import { NetworkError } from './network-error.js';

const TUNSETIFF = 0x400454ca;
const IFF_TAP_WITHOUT_INFO = 0x1002;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCGIFINDEX = 0x8933;
const SIOCBRADDIF = 0x89a2;
const IFF_UP = 1;
const AF_INET = 2;
const SOCK_DGRAM = 2;
/** By number: EPERM and EOPNOTSUPP. */
const WHY: Record<number, string> = {
  1: 'not allowed (it takes CAP_NET_ADMIN)',
  95: 'that interface is no bridge',
};
/** `struct ifreq`: a name of 16 bytes, then a union. */
const IFREQ_BYTES = 40;
const NAME_BYTES = 16;

const library = koffi.load(null);
const ioctl = library.func('int ioctl(int fd, unsigned long request, void *argument)');
const socket = library.func('int socket(int family, int type, int protocol)');
const read = library.func('intptr_t read(int fd, void *into, size_t bytes)');
const write = library.func('intptr_t write(int fd, const void *from, size_t bytes)');
const poll = library.func('int poll(void *fds, unsigned long count, int timeoutMs)');
const eventfd = library.func('int eventfd(unsigned int value, int flags)');

function ifreq(name: string): Buffer {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name, 0, NAME_BYTES - 1, 'latin1');
  return request;
}

function ask(fd: number, code: number, request: Buffer, what: string): Buffer {
  if ((ioctl(fd, code, request) as number) >= 0) return request;
  const errno = koffi.errno();
  const why = WHY[errno] ?? `errno ${errno}`;
  throw new NetworkError('TAP_FAILED', `${what}: ${why}`);
}

/** Asks the kernel about interfaces by name. */
function onInterfaces<T>(work: (control: number) => T): T {
  const control = socket(AF_INET, SOCK_DGRAM, 0) as number;
  if (control < 0) throw new NetworkError('TAP_FAILED', 'no socket to ask about interfaces');
  try {
    return work(control);
  } finally {
    closeSync(control);
  }
}

function openTun(): number {
  try {
    return openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    const { message } = cause as Error;
    throw new NetworkError('TAP_FAILED', `tap: cannot open /dev/net/tun: ${message}`, { cause });
  }
}

/** A new TAP interface, a port of `bridge`, not up yet. */
export function openTap(bridge: string): { fd: number; name: string } {
  if (!isInterface(bridge)) {
    const known = Object.keys(networkInterfaces()).join(', ');
    const text = `tap:${bridge}: there is no bridge ${bridge} here (interfaces up: ${known})`;
    throw new NetworkError('NO_BRIDGE', text);
  }
  const fd = openTun();
  try {
    const request = ifreq('mirror%d');
    request.writeUInt16LE(IFF_TAP_WITHOUT_INFO, NAME_BYTES);
    ask(fd, TUNSETIFF, request, `tap:${bridge}: making a TAP`);
    const name = request.toString('latin1', 0, request.indexOf(0));
    withoutOwnAddresses(name);
    onInterfaces((control) => {
      const index = ask(control, SIOCGIFINDEX, ifreq(name), name).readInt32LE(NAME_BYTES);
      const join = ifreq(bridge);
      join.writeInt32LE(index, NAME_BYTES);
      ask(control, SIOCBRADDIF, join, `tap:${bridge}: joining the bridge`);
    });
    return { fd, name };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

const isInterface = (name: string): boolean =>
  onInterfaces((control) => (ioctl(control, SIOCGIFINDEX, ifreq(name)) as number) >= 0);

/** The host itself says nothing on the VM's cable. */
function withoutOwnAddresses(name: string): void {
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
  } catch {
    // A kernel without IPv6.
  }
}

export function bringUp(name: string): void {
  onInterfaces((control) => {
    const request = ask(control, SIOCGIFFLAGS, ifreq(name), name);
    request.writeUInt16LE(request.readUInt16LE(NAME_BYTES) | IFF_UP, NAME_BYTES);
    ask(control, SIOCSIFFLAGS, request, `${name}: bringing it up`);
  });
}

/** False if there was no room for it. */
export function writeTap(fd: number, frame: Uint8Array): boolean {
  return (write(fd, frame, frame.length) as number) === frame.length;
}

/** Length of the frame read into the start of `into`; 0: there is none, or the TAP is down. */
export function readTap(fd: number, into: Uint8Array): number {
  const got = read(fd, into, into.length) as number;
  return Math.max(0, got);
}

/** A descriptor that another thread can be woken by. */
export function wakeFd(): number {
  const fd = eventfd(0, 0) as number;
  if (fd < 0) throw new NetworkError('TAP_FAILED', `eventfd failed: errno ${koffi.errno()}`);
  return fd;
}

export function wake(fd: number): void {
  write(fd, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), 8);
}

const POLLIN = 1;
const POLLFD_BYTES = 8;

/** Blocks this thread until one of `fds` can be read; which of them can. */
export function waitReadable(fds: readonly number[], timeoutMs: number): boolean[] {
  const request = Buffer.alloc(fds.length * POLLFD_BYTES);
  fds.forEach((fd, index) => {
    request.writeInt32LE(fd, index * POLLFD_BYTES);
    request.writeInt16LE(POLLIN, index * POLLFD_BYTES + 4);
  });
  poll(request, fds.length, timeoutMs);
  return fds.map((_, index) => (request.readInt16LE(index * POLLFD_BYTES + 6) & POLLIN) !== 0);
}
