/** The calls of the C library that Node has no name for. Linux only. */
import koffi from 'koffi';
import { QemuError } from './qemu-error.js';

const MFD_CLOEXEC = 1;
const MAP_SHARED_FIXED = 0x11;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const ENXIO = 6;
const PUNCH_HOLE_KEEP_SIZE = 3;
const FIONREAD = 0x541b;
const SIOCOUTQ = 0x5411;
const EAGAIN = 11;
const POLLIN = 1;
const POLLFD_BYTES = 8;
const SHUT_RDWR = 2;

export const Access = { read: 1, readWrite: 3 } as const;

const library = koffi.load(null);
const memfdCreate = library.func('int memfd_create(const char *name, unsigned int flags)');
const mmap = library.func(
  'intptr_t mmap(uintptr_t address, size_t bytes, int access, int flags, int fd, int64_t offset)',
);
const memmove = library.func('uintptr_t memmove(void *to, void *from, size_t bytes)');
const lseek = library.func('int64_t lseek(int fd, int64_t offset, int whence)');
const fallocate = library.func('int fallocate(int fd, int mode, int64_t offset, int64_t bytes)');
const ioctl = library.func('int ioctl(int fd, unsigned long request, _Out_ int *value)');
const read = library.func('intptr_t read(int fd, void *into, size_t bytes)');
const shutdown = library.func('int shutdown(int fd, int how)');
const poll = library.func('int poll(void *fds, unsigned long count, int timeoutMs)');

function checked(call: string, result: number): number {
  if (result === -1) throw new QemuError('LIBC', `${call} failed: errno ${koffi.errno()}`);
  return result;
}

/** A file that lives in memory alone and goes with its last descriptor. */
export function memoryFile(name: string): number {
  return checked('memfd_create', memfdCreate(name, MFD_CLOEXEC) as number);
}

/**
 * Maps a file over part of a wasm memory, so that kernels work on the file's pages in place. The
 * memory must never grow. `offset` is a multiple of 4096.
 */
export function mapInto(
  memory: WebAssembly.Memory,
  offset: number,
  { fd, bytes, access }: { fd: number; bytes: number; access: number },
): void {
  const view = new Uint8Array(memory.buffer, offset, bytes);
  const address = memmove(view, view, 0) as number;
  checked('mmap', mmap(address, bytes, access, MAP_SHARED_FIXED, fd, 0) as number);
}

/** The next stretch of a file at or after `from` that was ever written; null: none. */
export function nextData(fd: number, from: number): { from: number; to: number } | null {
  const start = lseek(fd, from, SEEK_DATA) as number;
  if (start === -1 && koffi.errno() === ENXIO) return null;
  checked('lseek', start);
  return { from: start, to: checked('lseek', lseek(fd, start, SEEK_HOLE) as number) };
}

/** Zero again, and taking no room. */
export function punchHole(fd: number, bytes: number): void {
  checked('fallocate', fallocate(fd, PUNCH_HOLE_KEEP_SIZE, 0, bytes) as number);
}

function asked(fd: number, request: number): number {
  const value = [0];
  checked('ioctl', ioctl(fd, request, value) as number);
  return value[0];
}

/** Bytes that came and were not read. */
export function unreadBytes(fd: number): number {
  return asked(fd, FIONREAD);
}

/** False once the other end has read everything; how much it has not read is not exact. */
export function hasUntaken(fd: number): boolean {
  return asked(fd, SIOCOUTQ) > 0;
}

/** Bytes read into `into`; 0 at the end of the stream; -1 if there are none yet. */
export function nonBlockingRead(fd: number, into: Uint8Array): number {
  const got = read(fd, into, into.length) as number;
  if (got >= 0 || koffi.errno() === EAGAIN) return got;
  return checked('read', got);
}

/** Ends both directions of a connection: whoever waits for its bytes sees the end of them. */
export function shutDown(fd: number): void {
  checked('shutdown', shutdown(fd, SHUT_RDWR) as number);
}

/** Waits for something to read, by blocking this thread. */
export class ReadWaiter {
  private readonly request = Buffer.alloc(POLLFD_BYTES);

  constructor(fd: number) {
    this.request.writeInt32LE(fd, 0);
    this.request.writeInt16LE(POLLIN, 4);
  }

  /** False if there was nothing within `timeoutMs`. */
  wait(timeoutMs: number): boolean {
    return checked('poll', poll(this.request, 1, timeoutMs) as number) > 0;
  }
}
