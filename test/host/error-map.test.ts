/** Every error code of the daemon, the pool and the command line has its exit code and status. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { exitCodeOf, httpStatusOf, mappedCodes } from '../../src/host/error-map.js';

const src = fileURLToPath(new URL('../../../src/', import.meta.url));
const map = suite('error map');

function codesThrown(): Set<string> {
  const codes = new Set<string>();
  for (const folder of ['host', 'cli', 'pool'])
    for (const file of readdirSync(join(src, folder))) {
      const text = readFileSync(join(src, folder, file), 'utf8');
      for (const pattern of [/(?:Error|super)\(\s*'([A-Z][A-Z_]+)'/g, /\bcode: '([A-Z_]+)'/g])
        for (const [, code] of text.matchAll(pattern)) codes.add(code);
    }
  // Not an error: a warning in a status.
  codes.delete('NO_ANSWER');
  return codes;
}

map('no code is left out', () => {
  const thrown = codesThrown();
  assert.ok(thrown.size > 20, 'the search finds codes');
  const known = mappedCodes();
  const unknown = [...thrown].filter((code) => !known.includes(code));
  assert.equal(unknown, []);
});

map('the exit codes are those of the manual', () => {
  const expected = { USAGE: 2, NO_SUCH_VM: 3, REFUSED: 4, NOT_PROTECTED: 5, TIMEOUT: 124 };
  for (const [code, exit] of Object.entries(expected)) assert.is(exitCodeOf(code), exit);
  assert.is(exitCodeOf('NEVER_HEARD_OF'), 1);
  assert.is(httpStatusOf('NEVER_HEARD_OF'), 500);
});

map.run();
