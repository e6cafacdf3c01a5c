/** A raw device, or a file that stands in for one, read and written past the page cache. */
import { constants } from 'node:fs';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { MirrorError } from '../core/errors.js';
import { alignedBuffer } from './libc.js';
import { COPY_BYTES } from './slot.js';

const SECTOR_BYTES = 512;
const { O_RDWR, O_DIRECT, O_DSYNC, O_EXCL } = constants;

export class DeviceFile {
  private readonly path: string;
  private readonly handle: FileHandle;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.handle = handle;
  }

  /** What is written is on stable storage, and what is read comes from there. */
  static async open(path: string): Promise<DeviceFile> {
    return new DeviceFile(path, await opened(path, 0));
  }

  /** The same, refused by the kernel for a block device that is mounted or part of another. */
  static async openUnused(path: string): Promise<DeviceFile> {
    const handle = await opened(path, 0);
    const file = new DeviceFile(path, handle);
    if (!(await handle.stat()).isBlockDevice()) return file;
    await file.close();
    return new DeviceFile(path, await opened(path, O_EXCL));
  }

  async bytes(): Promise<number> {
    const stat = await this.handle.stat();
    if (stat.isFile()) return stat.size;
    if (!stat.isBlockDevice())
      throw new MirrorError('REFUSED', `${this.path} is neither a block device nor a file`);
    const major = (stat.rdev >> 8) & 0xfff;
    const minor = (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xfff00);
    const sectors = await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8');
    return Number(sectors) * SECTOR_BYTES;
  }

  async read(offset: number, bytes: number): Promise<Buffer> {
    const into = alignedBuffer(bytes, COPY_BYTES);
    const { bytesRead } = await this.handle.read(into, 0, bytes, offset);
    if (bytesRead === bytes) return into;
    throw new MirrorError('BAD_STATE', `${this.path} is shorter than the arbiter that was on it`);
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    const from = alignedBuffer(bytes.length, COPY_BYTES);
    bytes.copy(from);
    const { bytesWritten } = await this.handle.write(from, 0, from.length, offset);
    if (bytesWritten === from.length) return;
    throw new MirrorError('BAD_STATE', `${this.path} took only part of a write`);
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

async function opened(path: string, more: number): Promise<FileHandle> {
  try {
    return await open(path, O_RDWR | O_DIRECT | O_DSYNC | more);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why: Record<string, string> = {
      EINVAL: 'what it is on takes no I/O past the page cache (O_DIRECT)',
      EBUSY: 'it is in use: mounted, or part of another device',
      ENOENT: 'it is not there',
    };
    const text = `${path} cannot be opened: ${why[code ?? ''] ?? String(code)}; nothing was done`;
    throw new MirrorError('REFUSED', text, { cause });
  }
}
