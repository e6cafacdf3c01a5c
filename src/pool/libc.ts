/** What shared storage needs of the C library and Node has no name for. Linux only. */
import koffi from 'koffi';

const LOCK_EXCLUSIVE_NOW = 6;

const library = koffi.load(null);
const flock = library.func('int flock(int fd, int operation)');
const memmove = library.func('uintptr_t memmove(void *to, void *from, size_t bytes)');

/** True if the open file now has the lock, which ends with it; false if another has. */
export function lockNow(fd: number): boolean {
  return flock(fd, LOCK_EXCLUSIVE_NOW) === 0;
}

/** Zeros that begin at a multiple of `align`, as I/O past the page cache demands. */
export function alignedBuffer(bytes: number, align: number): Buffer {
  const room = Buffer.alloc(bytes + align);
  const address = memmove(room, room, 0) as number;
  const start = (align - (address % align)) % align;
  return room.subarray(start, start + bytes);
}
