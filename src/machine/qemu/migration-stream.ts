/**
 * The migration stream of QEMU, as far as a takeover needs it: what comes before the device
 * sections is taken once from a real migration of RAM that is shared (`x-ignore-shared`), what
 * follows is a device state. All integers are big-endian. Source: QEMU's docs/devel/migration.rst
 * and migration/ram.c, 7.2.
 */
import type { Server } from 'node:net';
import { QemuError } from './qemu-error.js';
import type { QmpClient } from './qmp-client.js';

const MAGIC = 0x5145564d;
const HEADER_BYTES = 8;
const Section = { start: 1, part: 2, end: 3, footer: 0x7e } as const;
const Flag = {
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  endOfSection: 0x10,
  sameBlock: 0x20,
} as const;
const FLAGS = 0xfff;
const PAGE_BYTES = 4096;
const RAM_NAME = Buffer.from('\x03ram', 'latin1');
/** An empty description of the devices, which ends a stream. */
const DESCRIPTION = Buffer.from([6, 0, 0, 0, 2, 0x7b, 0x7d]);
const STREAM_BYTES_MAX = 64 << 20;
const MIGRATE_MS_MAX = 10_000;

class Reader {
  at: number;
  private readonly bytes: Buffer;

  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  u8(): number {
    this.at += 1;
    return this.bytes.readUInt8(this.at - 1);
  }

  u32(): number {
    this.at += 4;
    return this.bytes.readUInt32BE(this.at - 4);
  }

  u64(): bigint {
    this.at += 8;
    return this.bytes.readBigUInt64BE(this.at - 8);
  }

  /** A name with its length before it. */
  skipName(): void {
    const bytes = this.u8();
    this.at += bytes;
  }
}

/** How many bytes of a stream come before its first device section. */
export function ramPrefixBytes(stream: Buffer): number {
  if (stream.length < HEADER_BYTES || stream.readUInt32BE(0) !== MAGIC)
    throw new QemuError('QEMU_STREAM', 'QEMU sent no migration stream');
  const named = stream.indexOf(RAM_NAME);
  const reader = new Reader(stream, named - 5);
  try {
    for (;;) {
      const section = reader.u8();
      reader.u32();
      if (section === Section.start) {
        reader.skipName();
        reader.at += 8;
      } else if (section !== Section.part && section !== Section.end)
        throw new QemuError('QEMU_STREAM', `no RAM section: ${section} at ${reader.at}`);
      skipRecords(reader);
      if (reader.u8() !== Section.footer) throw new QemuError('QEMU_STREAM', 'no section footer');
      reader.u32();
      if (section === Section.end) return reader.at;
    }
  } catch (cause) {
    if (cause instanceof QemuError) throw cause;
    throw new QemuError('QEMU_STREAM', 'the migration stream ends too early', { cause });
  }
}

function skipRecords(reader: Reader): void {
  for (;;) {
    const word = reader.u64();
    const flags = Number(word & BigInt(FLAGS));
    if (flags & Flag.memSize) skipBlocks(reader, word - BigInt(flags));
    if (flags & Flag.endOfSection) return;
    if (flags & (Flag.page | Flag.zero)) {
      if (!(flags & Flag.sameBlock)) reader.skipName();
      reader.at += flags & Flag.page ? PAGE_BYTES : 1;
    } else if (!(flags & Flag.memSize))
      throw new QemuError('QEMU_STREAM', `unknown RAM record ${flags.toString(16)}`);
  }
}

/** Name, length and guest address of each block. */
function skipBlocks(reader: Reader, totalBytes: bigint): void {
  for (let bytes = 0n; bytes < totalBytes;) {
    reader.skipName();
    bytes += reader.u64();
    reader.u64();
  }
}

/** What a takeover sends before the devices, as this QEMU (paused, its RAM shared) says it. */
export async function takeTemplate(qmp: QmpClient, server: Server, path: string): Promise<Buffer> {
  await setIgnoreShared(qmp, true);
  const stream = readStream(server);
  await Promise.all([qmp.execute('migrate', { uri: `unix:${path}` }), stream]);
  await migrated(qmp);
  await setIgnoreShared(qmp, false);
  const bytes = await stream;
  return bytes.subarray(0, ramPrefixBytes(bytes));
}

/**
 * A VM that was migrated away may not be so again until it ran. One that has not run yet loses
 * nothing by a reset, which makes it new.
 */
export async function forgetMigration(qmp: QmpClient): Promise<void> {
  await qmp.execute('system_reset');
  const endAt = Date.now() + MIGRATE_MS_MAX;
  for (;;) {
    const { status } = (await qmp.execute('query-status')) as { status?: string };
    if (status === 'prelaunch') return;
    if (Date.now() > endAt) throw new QemuError('QEMU_MIGRATE', `no reset: the VM is ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

export async function setIgnoreShared(qmp: QmpClient, state: boolean): Promise<void> {
  const capabilities = [{ capability: 'x-ignore-shared', state }];
  await qmp.execute('migrate-set-capabilities', { capabilities });
}

/** Settles once the migration under way, in or out, has ended well. */
export async function migrated(qmp: QmpClient): Promise<void> {
  const endAt = Date.now() + MIGRATE_MS_MAX;
  for (;;) {
    const told = (await qmp.execute('query-migrate')) as { status?: string; 'error-desc'?: string };
    if (told.status === 'completed') return;
    if (told.status === 'failed' || Date.now() > endAt)
      throw new QemuError('QEMU_MIGRATE', `${told.status}: ${told['error-desc'] ?? 'no reason'}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A whole stream that restores a machine whose RAM is in place. */
export function restoreStream(template: Uint8Array, deviceState: Uint8Array): Buffer {
  return Buffer.concat([template, deviceState.subarray(HEADER_BYTES), DESCRIPTION]);
}

function readStream(server: Server): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const late = new QemuError('QEMU_MIGRATE', `no stream within ${MIGRATE_MS_MAX} ms`);
    const timer = setTimeout(() => reject(late), MIGRATE_MS_MAX);
    server.once('connection', (socket) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        bytes += chunk.length;
        if (bytes > STREAM_BYTES_MAX)
          socket.destroy(new Error('RAM that is not shared is too large'));
      });
      socket.once('error', reject);
      socket.once('end', () => {
        clearTimeout(timer);
        socket.destroy();
        resolve(Buffer.concat(chunks));
      });
    });
  });
}
