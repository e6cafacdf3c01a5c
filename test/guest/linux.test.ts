/** The Linux guest: built from Debian's packages, booted in the embedded machine to a shell. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { GuestEndpoint } from '../../src/drill/guest-endpoint.js';
import { cpioArchive } from '../../src/guest/cpio.js';
import { LinuxBuildError } from '../../src/guest/linux-build-error.js';
import { buildLinux, LINUX_CMDLINE } from '../../src/guest/linux-builder.js';
import { testIf, until, within } from '../within.js';
import { startGuest, whatLinuxNeeds } from './guest-rig.js';

const test = suite('linux guest');
const SELF = { mac: '02:00:00:00:00:01', ip: '10.77.0.1', guestIp: '10.77.0.2' };

async function withFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mirror-linux-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

testIf(test, 'boots to a shell with the network up', whatLinuxNeeds(), () =>
  withFolder(async (folder) => {
    const log = (line: string): void => void process.stdout.write(`${line}\n`);
    const built = await within(120_000, 'build', buildLinux({ outDir: folder, log }));
    const boot = { kernel: readFileSync(built.kernel), initrd: readFileSync(built.initrd) };
    const startedAt = Date.now();
    const rig = await startGuest(`${LINUX_CMDLINE} ip=10.77.0.2/24`, 96, boot);
    try {
      await rig.says(/mirror linux up 6\.\d+\.\d+-\d+-686 ip=10\.77\.0\.2\/24/, 90_000);
      await rig.says(/mirror# /, 10_000);
      process.stdout.write(`NOTE linux: prompt after ${Date.now() - startedAt} ms\n`);
      rig.type('echo sum $((6*7)); ip -o addr show eth0\n');
      await rig.says(/^sum 42\r?\n.*eth0.*inet 10\.77\.0\.2\/24/m, 10_000);
      const endpoint = new GuestEndpoint(rig.ethernet, SELF);
      const pingMs = await endpoint.ping(10_000);
      assert.ok(pingMs < 5_000, `${pingMs} ms`);
      rig.type('poweroff -f\n');
      await until(20_000, 'power-off', () => rig.poweredOff());
    } finally {
      await rig.stop();
    }
  }),
);

test('says clearly what it needs where there is no apt', async () => {
  await withFolder(async (folder) => {
    const path = process.env['PATH'];
    process.env['PATH'] = folder;
    try {
      await buildLinux({ outDir: folder, log: () => {} });
      assert.unreachable();
    } catch (error) {
      assert.ok(error instanceof LinuxBuildError);
      assert.match((error as Error).message, /apt-get is not on this system/);
    } finally {
      process.env['PATH'] = path;
    }
  });
});

test('cpio: newc headers, names and data, each padded to four bytes', () => {
  const archive = Buffer.from(
    cpioArchive([
      { path: 'dev', kind: 'folder' },
      { path: 'dev/console', kind: 'device', major: 5, minor: 1 },
      { path: 'hello', kind: 'file', data: 'hello' },
    ]),
  );
  assert.is(archive.length % 4, 0);
  const text = archive.toString('latin1');
  const folder = `07070100000001000041ed${'0'.repeat(16)}00000002`;
  assert.ok(text.startsWith(folder));
  assert.is(text.includes(`hello\0hello${'\0'.repeat(3)}070701`), true);
  assert.match(text, /0000000500000001[0-9a-f]{16}dev\/console\0/);
  assert.match(text, /TRAILER!!!\0+$/);
});

test.run();
