/** What a disk image is, told by its content alone, and which ones are not taken. */
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { imageFacts, ImageError, type ImageDemands } from '../../src/disk/image-file.js';

const images = suite('disk images');
const dir = mkdtempSync(join(tmpdir(), 'mirror-images-'));
images.after(() => rmSync(dir, { recursive: true }));

const ANY: ImageDemands = { format: null, readOnly: false };
const GIB = 1 << 30;

let made = 0;
function file(content: Buffer): string {
  made += 1;
  const path = join(dir, `${made}.img`);
  writeFileSync(path, content);
  return path;
}

interface Header {
  readonly version?: number;
  readonly backingOffset?: bigint;
  readonly bytes?: bigint;
  readonly encryption?: number;
  readonly incompatible?: bigint;
}

/** The fields of a qcow2 header that count here; all big-endian. */
function qcow2(header: Header): Buffer {
  const bytes = Buffer.alloc(512);
  bytes.set([0x51, 0x46, 0x49, 0xfb]);
  bytes.writeUInt32BE(header.version ?? 3, 4);
  bytes.writeBigUInt64BE(header.backingOffset ?? 0n, 8);
  bytes.writeBigUInt64BE(header.bytes ?? BigInt(GIB), 24);
  bytes.writeUInt32BE(header.encryption ?? 0, 32);
  bytes.writeBigUInt64BE(header.incompatible ?? 0n, 72);
  return bytes;
}

async function refused(path: string, demands = ANY): Promise<ImageError> {
  try {
    await imageFacts(path, demands);
  } catch (error) {
    assert.instance(error, ImageError);
    assert.match((error as Error).message, path);
    return error as ImageError;
  }
  throw new Error(`${path} was taken`);
}

images('a raw disk is as large as its file, a qcow2 one as its header says', async () => {
  assert.equal(await imageFacts(file(Buffer.alloc(1024)), ANY), { format: 'raw', bytes: 1024 });
  const image = file(qcow2({}));
  assert.equal(await imageFacts(image, ANY), { format: 'qcow2', bytes: GIB });
  const old = file(qcow2({ version: 2, incompatible: 4n }));
  assert.equal(await imageFacts(old, ANY), { format: 'qcow2', bytes: GIB });
});

images('a format that is stated holds against the content', async () => {
  const made = file(qcow2({ backingOffset: 256n }));
  const asRaw = await imageFacts(made, { format: 'raw', readOnly: false });
  assert.equal(asRaw, { format: 'raw', bytes: 512 });
  const raw = file(Buffer.alloc(512));
  assert.match((await refused(raw, { format: 'qcow2', readOnly: true })).message, 'no qcow2 image');
});

images('an image that names other files, or is encrypted, is refused by name', async () => {
  const told = async (header: Header): Promise<string> =>
    (await refused(file(qcow2(header)))).message;
  assert.match(await told({ backingOffset: 256n }), /backing file, .*qemu-img convert -O qcow2/);
  assert.match(await told({ incompatible: 4n }), /external data file, .*qemu-img convert/);
  assert.match(await told({ encryption: 2 }), /encrypted/);
  const vmdk = Buffer.concat([Buffer.from('KDMV'), Buffer.alloc(508)]);
  assert.match((await refused(file(vmdk))).message, /VMDK image: convert it .*format: raw/);
  assert.is((await imageFacts(file(vmdk), { format: 'raw', readOnly: false })).bytes, 512);
});

images('no file, a folder, an empty one, half a sector: each says what it is', async () => {
  const absent = await refused(join(dir, 'none.raw'));
  assert.is(absent.absent, true);
  assert.match(absent.message, 'is not there');
  const folder = join(dir, 'folder');
  mkdirSync(folder);
  assert.match((await refused(folder)).message, 'no plain file');
  assert.match((await refused('/dev/null')).message, 'no plain file');
  assert.match((await refused(file(Buffer.alloc(0)))).message, 'has 0 bytes');
  assert.match((await refused(file(Buffer.alloc(700)))).message, 'has 700 bytes');
});

images.run();
