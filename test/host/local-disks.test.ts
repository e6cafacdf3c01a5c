/** Which files of a host a VM of another host may have as its disks. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkFolders } from '../../src/host/local-disks.js';
import type { MirrorError } from '../../src/core/errors.js';

const disks = suite('local disks');
const dir = mkdtempSync(join(tmpdir(), 'mirror-folders-'));
disks.after(() => rmSync(dir, { recursive: true }));

async function refusal(file: string, folders: string[]): Promise<string> {
  const disk = { id: 'root', file, bytes: null, format: null, readOnly: false, model: 'auto' };
  try {
    await checkFolders([disk as Parameters<typeof checkFolders>[0][number]], folders);
  } catch (error) {
    return (error as MirrorError).code;
  }
  return '';
}

disks('only those in folders that it allows, wherever links lead', async () => {
  const allowed = join(dir, 'allowed');
  mkdirSync(allowed);
  writeFileSync(join(allowed, 'a.raw'), '');
  writeFileSync(join(dir, 'secret'), '');
  symlinkSync(join(dir, 'secret'), join(allowed, 'out.raw'));
  symlinkSync(allowed, join(dir, 'link'));
  const cases: [string, string[], string][] = [
    ['allowed/a.raw', ['allowed'], ''],
    ['allowed/a.raw', ['link'], ''],
    ['link/a.raw', ['allowed'], ''],
    ['allowed/not-there.raw', ['other', 'allowed'], ''],
    ['allowed/a.raw', [], 'DISK_FOLDER'],
    ['secret', ['allowed'], 'DISK_FOLDER'],
    ['allowed/../secret', ['allowed'], 'DISK_FOLDER'],
    ['allowed/out.raw', ['allowed'], 'DISK_FOLDER'],
    ['allowed-too/a.raw', ['allowed'], 'DISK_FOLDER'],
  ];
  for (const [file, folders, code] of cases) {
    const paths = folders.map((folder) => join(dir, folder));
    assert.is(await refusal(`${dir}/${file}`, paths), code, `${file} in ${folders.join()}`);
  }
});

disks.run();
