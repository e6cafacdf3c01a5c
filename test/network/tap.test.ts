/** TAP links on a real bridge, and passt, in a network namespace of this test's own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readyLinks } from '../../src/network/nic-link.js';
import { passtArgs } from '../../src/network/user-link.js';
import { testIf, within } from '../within.js';
import { whatNamespacesNeed } from './namespaces.js';

const links = suite('links');
const helper = fileURLToPath(new URL('./tap-peer.js', import.meta.url));
const TEST_MS_MAX = 30_000;

/** Runs the helper inside a new network namespace, which goes with it. */
function inNamespace(scenario: string): Promise<string> {
  const child = spawn('unshare', ['--net', process.execPath, helper, scenario], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const ended = new Promise<string>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => (code === 0 ? resolve(text) : reject(new Error(text))));
  });
  return within(TEST_MS_MAX, scenario, ended);
}

testIf(links, 'frames go through a bridge, both ways, whole', whatNamespacesNeed(), async () => {
  assert.match(await inNamespace('echo'), /^3000 of 3000 frames came back\n$/);
});

testIf(
  links,
  'a link says nothing and hears nothing before it is plugged in',
  whatNamespacesNeed(),
  async () => {
    assert.match(await inNamespace('ready'), /^silent, then heard\n$/);
  },
);

testIf(links, 'closed, its interface is gone', whatNamespacesNeed(), async () => {
  assert.match(await inNamespace('close'), /^1 interface, then 0\n$/);
});

links('a bridge that is not there is named', async () => {
  let message = '';
  await readyLinks([{ id: 'lan', attach: 'tap:nobridge0' }]).catch((error: Error) => {
    message = error.message;
  });
  assert.match(message, /^tap:nobridge0: there is no bridge nobridge0 here/);
});

links('passt gets the forwarded ports', () => {
  const args = passtArgs('/x/passt.sock', [
    { address: '', hostPort: 8080, guestPort: 80 },
    { address: '127.0.0.1', hostPort: 2222, guestPort: 22 },
  ]).join(' ');
  assert.match(args, /--socket \/x\/passt\.sock/);
  assert.match(args, /--tcp-ports 8080:80 --tcp-ports 127\.0\.0\.1\/2222:22$/);
});

links.run();
