/**
 * A disk image as a file of this host: its format, how large the disk is, and why it is not taken.
 * What would have QEMU open further files by what the image says is refused.
 */
import { constants } from 'node:fs';
import { access, open, type FileHandle } from 'node:fs/promises';
import { MirrorError } from '../core/errors.js';

export type ImageFormat = 'raw' | 'qcow2';

export interface ImageFacts {
  readonly format: ImageFormat;
  /** Of the disk that the guest sees. */
  readonly bytes: number;
}

export interface ImageDemands {
  /** `null`: its content tells. */
  readonly format: ImageFormat | null;
  readonly readOnly: boolean;
}

/** `reason`: `absent`, or anything else that is wrong with the file. */
export class ImageError extends MirrorError {
  readonly absent: boolean;

  constructor(message: string, options: { absent?: boolean; cause?: unknown } = {}) {
    super('BAD_DISK', message, { cause: options.cause });
    this.absent = options.absent ?? false;
  }
}

const SECTOR_BYTES = 512;
/** QEMU's docs/interop/qcow2.txt. */
const QCOW2 = {
  magic: Buffer.from([0x51, 0x46, 0x49, 0xfb]),
  headerBytes: 112,
  backingOffset: 8,
  size: 24,
  encryption: 32,
  incompatible: 72,
  externalData: 1n << 2n,
} as const;
/** What else begins so is no raw disk: a guest would find nothing on it that it knows. */
const FOREIGN: readonly (readonly [string, string])[] = [
  ['VMDK', 'KDMV'],
  ['VHDX', 'vhdxfile'],
  ['VHD', 'conectix'],
  ['QED', 'QED\0'],
  ['VDI', '<<< '],
];

export async function imageFacts(path: string, demands: ImageDemands): Promise<ImageFacts> {
  const file = await open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
    const absent = cause.code === 'ENOENT';
    const why = absent ? 'is not there' : `cannot be read (${cause.code})`;
    throw new ImageError(`${path} ${why}`, { absent, cause });
  });
  try {
    return await factsOf(file, path, demands);
  } finally {
    await file.close();
  }
}

async function factsOf(file: FileHandle, path: string, demands: ImageDemands): Promise<ImageFacts> {
  const stat = await file.stat();
  if (!stat.isFile())
    throw new ImageError(`${path} is no plain file: other kinds of disks are not taken yet`);
  if (!demands.readOnly)
    await access(path, constants.W_OK).catch((cause: NodeJS.ErrnoException) => {
      throw new ImageError(`${path} cannot be written (${cause.code}): add readonly: true?`, {
        cause,
      });
    });
  const header = Buffer.alloc(QCOW2.headerBytes);
  await file.read(header, 0, header.length, 0);
  const told = header.subarray(0, QCOW2.magic.length).equals(QCOW2.magic) ? 'qcow2' : 'raw';
  const format = demands.format ?? told;
  if (format === 'qcow2' && told !== 'qcow2') throw new ImageError(`${path} is no qcow2 image`);
  if (format === 'qcow2') return { format, bytes: qcow2Bytes(header, path) };
  if (demands.format === null) refuseForeign(header, path);
  if (stat.size === 0 || stat.size % SECTOR_BYTES !== 0)
    throw new ImageError(
      `${path} has ${stat.size} bytes: a raw disk has some, and a multiple of ${SECTOR_BYTES}`,
    );
  return { format, bytes: stat.size };
}

function qcow2Bytes(header: Buffer, path: string): number {
  const flat = `: make it stand alone with qemu-img convert -O qcow2 ${path} NEW`;
  if (header.readBigUInt64BE(QCOW2.backingOffset) !== 0n)
    throw new ImageError(`${path} names a backing file, which is not followed${flat}`);
  const version = header.readUInt32BE(QCOW2.magic.length);
  const incompatible = version >= 3 ? header.readBigUInt64BE(QCOW2.incompatible) : 0n;
  if (incompatible & QCOW2.externalData)
    throw new ImageError(`${path} names an external data file, which is not followed${flat}`);
  if (header.readUInt32BE(QCOW2.encryption) !== 0)
    throw new ImageError(`${path} is encrypted, and nobody gives the key`);
  return Number(header.readBigUInt64BE(QCOW2.size));
}

function refuseForeign(header: Buffer, path: string): void {
  const text = header.toString('latin1');
  const found = FOREIGN.find(([, magic]) => text.startsWith(magic));
  if (!found) return;
  const [name] = found;
  throw new ImageError(
    `${path} is a ${name} image: convert it with qemu-img convert -O qcow2 ${path} NEW, ` +
      'or say format: raw if it is a raw disk after all',
  );
}
