/**
 * VMs with local disks on a stock QEMU. Both hosts of these tests see one file system, so that a
 * disk is at the same path on each: what a writable one needs, and what no host alone can have.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildLinux } from '../../src/guest/linux-builder.js';
import { whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { whatLinuxNeeds } from '../guest/guest-rig.js';
import { ticksSaying, writeBootDisk } from '../machine/boot-disk.js';
import { testIf, until, within } from '../within.js';
import { ConsoleTap } from './console-tap.js';
import { onPair, type Host, type TestPool } from './pool.js';
import { rest } from './scene.js';

const disks = suite('disks on qemu');
const dir = mkdtempSync(join(tmpdir(), 'mirror-e2e-disks-'));
disks.after(() => rmSync(dir, { recursive: true }));

const DISK_BYTES = 1 << 20;
const TEXT = ' of the disk';
const SECTOR_BYTES = 512;
const WRITES_AFTER = 20;
const LINUX_DISK_BYTES = 8 << 20;

const noQemu = whatQemuNeeds();
const noQemuImg = ['/usr/bin/qemu-img', '/bin/qemu-img'].some((path) => existsSync(path))
  ? ''
  : 'qemu-img is not installed: apt install qemu-utils';

const SYSTEM_PATH = '/usr/sbin:/sbin:/usr/bin:/bin';
const noExt4 = SYSTEM_PATH.split(':').some((folder) => existsSync(join(folder, 'mkfs.ext4')))
  ? ''
  : 'mkfs.ext4 is not installed: apt install e2fsprogs';

type Play = (pool: TestPool, a: Host, b: Host) => Promise<void>;

function given(name: string, missing: string, play: Play): void {
  testIf(disks, name, missing, () => onPair(name, 1_000, 90_000, play));
}

function bootDisk(name: string): string {
  const path = join(dir, `${name}.raw`);
  writeBootDisk(path, DISK_BYTES, TEXT);
  return path;
}

const vmOf = (pool: TestPool, disk: string): string =>
  pool.writeVm('web', {
    ...{ boot: 'disk: root', cmdline: '', disks: [disk], epoch: '50ms' },
    engine: 'auto',
  });

/** Kills the owner's host, and follows the VM to its standby. */
async function takeOver(pool: TestPool, [a, b]: [Host, Host], tap: ConsoleTap): Promise<void> {
  await pool.kill(a.process);
  const after = await pool.waitFor(b, 'web', 'solo');
  assert.is(after.owner, 'b');
  tap.follow(b.socket);
}

async function moreTicks(tap: ConsoleTap): Promise<void> {
  const known = ticksSaying(TEXT, tap.text).length;
  await until(20_000, 'ticks', () => ticksSaying(TEXT, tap.text).length > known + 5);
  const ticks = ticksSaying(TEXT, tap.text);
  assert.equal(ticks, ticks.map((_, index) => index + 1), 'none missing, none twice');
  assert.not.match(tap.text, 'FAULT');
}

const noQcow2 = noQemu || noQemuImg;
given('boots from a read-only qcow2, which is mirrored', noQcow2, async (pool, a, b) => {
  const raw = bootDisk('readonly');
  const file = join(dir, 'readonly.qcow2');
  execFileSync('qemu-img', ['convert', '-O', 'qcow2', raw, file]);
  const vm = vmOf(pool, `id: root, size: 1MiB, file: ${file}, readonly: true`);
  const started = await pool.mirror(a, ['start', vm, '--peer', b.address]);
  assert.is(started.code, 0, started.stderr);
  assert.is((await pool.status(a, 'web'))?.engine, 'qemu', 'auto took it');
  const tap = new ConsoleTap(a.socket, 'web');
  try {
    await until(20_000, 'its firmware', () => tap.text.includes('Booting from Hard Disk'));
    await moreTicks(tap);
    await takeOver(pool, [a, b], tap);
    await moreTicks(tap);
    assert.equal((await pool.status(b, 'web'))?.warnings.filter(isUnsafe), []);
  } finally {
    tap.close();
  }
});

const isUnsafe = ({ code }: { code: string }): boolean => code === 'UNSAFE_DISKS';

async function warnsOfDisks(pool: TestPool, host: Host): Promise<string> {
  const status = await pool.status(host, 'web');
  return status?.warnings.find(isUnsafe)?.text ?? '';
}

given('a writable disk is mirrored on a person’s word alone', noQemu, async (pool, a, b) => {
  const file = bootDisk('writable');
  const vm = vmOf(pool, `id: root, file: ${file}`);
  const refused = await pool.mirror(a, ['start', vm, '--peer', b.address]);
  assert.is(refused.code, 4, refused.stderr);
  for (const part of [`root (${file})`, 'damaged', 'Nothing was started', '--unsafe-disks'])
    assert.match(refused.stderr, part);
  const alone = await pool.mirror(a, ['start', vm]);
  assert.is(alone.code, 0, alone.stderr);
  assert.is(await warnsOfDisks(pool, a), '');
  const protect = ['protect', 'web', '--peer', b.address];
  assert.is((await pool.mirror(a, protect)).code, 4);
  assert.is((await pool.mirror(a, [...protect, '--unsafe-disks'])).code, 0);
  await pool.waitFor(a, 'web', 'protected');
  for (const host of [a, b]) assert.match(await warnsOfDisks(pool, host), `root (${file})`);
  const tap = new ConsoleTap(a.socket, 'web');
  try {
    await moreTicks(tap);
    await takeOver(pool, [a, b], tap);
    await moreTicks(tap);
    await pool.startHost(a);
    await pool.waitFor(b, 'web', 'protected');
    assert.match(await warnsOfDisks(pool, a), 'not mirrored');
    // A planned one finds the disk locked until its last owner has ended.
    assert.is((await pool.mirror(b, ['takeover', 'web'])).code, 0);
    tap.follow(a.socket);
    await pool.waitFor(a, 'web', 'protected');
    await moreTicks(tap);
    assert.is((await pool.mirror(a, ['unprotect', 'web'])).code, 0);
    await pool.waitFor(a, 'web', 'solo');
    assert.is(await warnsOfDisks(pool, a), '');
  } finally {
    tap.close();
  }
});

given('a standby that lacks the disk says so at the owner', noQemu, async (pool, a, b) => {
  const file = bootDisk('moved');
  const vm = vmOf(pool, `id: root, file: ${file}`);
  assert.is((await pool.mirror(a, ['start', vm])).code, 0);
  renameSync(file, `${file}.away`);
  const protect = ['protect', 'web', '--peer', b.address, '--unsafe-disks'];
  assert.is((await pool.mirror(a, protect)).code, 0);
  const why = await until(20_000, 'the reason', async () =>
    (await pool.status(a, 'web'))?.warnings.find(({ code }) => code === 'DIAL_FAILED'),
  );
  for (const part of ['cannot stand by: host b', 'disk root', file, 'is not there'])
    assert.match(why.text, part);
  writeFileSync(file, Buffer.alloc(2 * DISK_BYTES));
  await until(20_000, 'another', async () =>
    (await pool.status(a, 'web'))?.warnings.find(({ text }) =>
      text.includes(`a disk of ${2 * DISK_BYTES} bytes, not ${DISK_BYTES}`),
    ),
  );
  rmSync(file);
  renameSync(`${file}.away`, file);
  await pool.waitFor(a, 'web', 'protected');
});

given('an image that cannot be is refused before anything is started', noQemu, async (pool, a) => {
  const file = join(dir, 'none.raw');
  const absent = await pool.mirror(a, ['start', vmOf(pool, `id: root, size: 2MiB, file: ${file}`)]);
  assert.is(absent.code, 2);
  for (const part of ['disks.0.file', 'is not there', `qemu-img create -f raw ${file} 2097152`])
    assert.match(absent.stderr, part);
  const other = bootDisk('other');
  const wrong = await pool.mirror(a, ['start', vmOf(pool, `id: root, size: 2MiB, file: ${other}`)]);
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, 'is a disk of 1048576 bytes, not 2097152');
  assert.is((await pool.mirror(a, ['status', 'web'])).code, 3, 'nothing is known of it');
});

/** Writes its number to one sector after the other, and says so once it is on the disk. */
const WRITER =
  'i=0; while :; do i=$((i+1)); echo "sector $i" | ' +
  'dd of=/dev/vda bs=512 seek=$i conv=fsync 2>/dev/null && echo "wrote $i."; sleep 0.1; done\n';

function writes(text: string): number[] {
  return [...text.matchAll(/^wrote (\d+)\.\r?$/gm)].map((match) => Number(match[1]));
}

async function linuxWrites(pool: TestPool, a: Host, b: Host): Promise<void> {
  const log = (line: string): void => void process.stdout.write(`${line}\n`);
  const build = buildLinux({ outDir: dir, log, architecture: 'amd64' });
  const guest = await within(60_000, 'build', build);
  const [file, files] = [join(dir, 'data.raw'), join(dir, 'files.raw')];
  for (const path of [file, files]) writeFileSync(path, Buffer.alloc(LINUX_DISK_BYTES));
  execFileSync('mkfs.ext4', ['-q', '-F', files], { env: { PATH: SYSTEM_PATH } });
  const vm = pool.writeVm('web', {
    boot: `kernel: "${guest.kernel}", initrd: "${guest.initrd}"`,
    ...{ cmdline: guest.cmdline, memory: '128MiB', epoch: '50ms', engine: 'qemu' },
    disks: [`id: data, file: ${file}`, `id: files, file: ${files}`],
  });
  const args = ['start', vm, '--peer', b.address, '--unsafe-disks'];
  const started = await pool.mirror(a, args, 60_000);
  assert.is(started.code, 0, started.stderr);
  const tap = new ConsoleTap(a.socket, 'web');
  try {
    await until(60_000, 'a prompt', () => tap.text.includes('mirror# '));
    tap.type('mount -t ext4 /dev/vdb /mnt && echo kept >/mnt/x && umount /mnt && echo ext4 $?\n');
    await until(20_000, 'a file', () => /^ext4 0\r?$/m.test(tap.text));
    tap.type(WRITER);
    await until(20_000, 'writes', () => writes(tap.text).length > 10);
    await rest(500);
    await takeOver(pool, [a, b], tap);
    const known = writes(tap.text).length;
    await until(30_000, 'more', () => writes(tap.text).length > known + WRITES_AFTER);
  } finally {
    tap.close();
  }
  const written = writes(tap.text);
  assert.equal(written, written.map((_, index) => index + 1), 'each said once');
  const image = readFileSync(file);
  for (const sector of written) {
    const text = `sector ${sector}\n`;
    const at = sector * SECTOR_BYTES;
    assert.is(image.toString('latin1', at, at + text.length), text);
  }
}

const noLinux = noQemu || noExt4 || whatLinuxNeeds();
given('Linux writes on after kill -9 of its host', noLinux, linuxWrites);

disks.run();
