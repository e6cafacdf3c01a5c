/** The committed ELF of the built-in guest is what its source gives. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { testIf } from '../within.js';

/** The committed bytes come from Debian 12's gcc; another major may order its code otherwise. */
const GCC_MAJOR = '12';
const root = fileURLToPath(new URL('../../../', import.meta.url));
const test = suite('built-in guest, rebuilt');

function whatIsMissing(): string {
  try {
    const major = execFileSync('gcc', ['-dumpversion'], { encoding: 'utf8' }).split('.')[0].trim();
    const machine = execFileSync('gcc', ['-dumpmachine'], { encoding: 'utf8' });
    if (!/^(x86_64|i[3-6]86)/.test(machine)) return `gcc builds for ${machine.trim()}`;
    return major === GCC_MAJOR ? '' : `gcc ${GCC_MAJOR} built it; here is gcc ${major}`;
  } catch {
    return 'no gcc';
  }
}

testIf(test, 'the same source gives the same bytes', whatIsMissing(), () => {
  const folder = mkdtempSync(join(tmpdir(), 'mirror-guest-'));
  try {
    const out = join(folder, 'guest.elf');
    execFileSync(join(root, 'src/guest/builtin/build.sh'), [out], { timeout: 60_000 });
    const built = readFileSync(out);
    const committed = readFileSync(join(root, 'src/guest/builtin.elf'));
    assert.ok(built.equals(committed), 'run src/guest/builtin/build.sh and commit builtin.elf');
    assert.ok(built.length < 16_384, `${built.length} bytes`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
