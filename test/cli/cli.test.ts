/** The command line: exit codes, one JSON object, messages on stderr, data on stdout. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { onPair, runMirror, TestPool, type Host, type Ran } from '../e2e/pool.js';
import { until, within } from '../within.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const cli = suite('command line');

const mirror = (...args: string[]): Promise<Ran> => runMirror(args, 20_000);

const COMMANDS = [
  ...['demo', 'host', 'witness', 'start', 'stop', 'status', 'list', 'wait', 'protect'],
  ...['unprotect', 'takeover', 'reseed', 'console', 'switch', 'guest client', 'guest build'],
  ...['doctor', 'version', 'token', 'join', 'hosts', 'rotate', 'forget'],
];

interface Running {
  readonly stdout: () => string;
  /** Ends it, and resolves to its exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

function running(args: string[]): Running {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.resume();
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const end = (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal);
    return within(10_000, 'the end', ended);
  };
  return { stdout: () => stdout, end };
}

cli('help names every command, and each command its options', async () => {
  const help = await mirror('help');
  assert.is(help.code, 0);
  for (const command of COMMANDS) assert.match(help.stdout, `mirror ${command}`);
  const start = await mirror('help', 'start');
  assert.is(start.code, 0);
  assert.match(start.stdout, '--peer');
  assert.is((await mirror('start', '--help')).stdout, start.stdout);
  const bare = await mirror();
  assert.is(bare.code, 2);
  assert.is(bare.stdout, '');
});

cli('wrong usage is 2, with a reason on stderr and nothing on stdout', async () => {
  const wrong = [
    ['dance'],
    ['start'],
    ['start', 'a', 'b'],
    ['start', 'web', '--colour', 'red'],
    ['start', 'web', '--engine', 'bochs'],
    ['start', 'web', '--peer', 'NO/WHERE'],
    ['join', '127.0.0.1:1'],
    ['join', 'here', '--token', 'T'],
    ['forget'],
    ['token', '--for', 'soon'],
    ['start', 'web', '--timeout', 'soon'],
    ['wait', 'web', '--for', 'happy'],
    ['wait', 'web'],
    ['reseed', 'web'],
    ['host', '--name', 'A!', '--listen', '127.0.0.1:1', '--arbiter', 'witness:127.0.0.1:1'],
    ['host', '--listen', '127.0.0.1:1', '--arbiter', 'witness:127.0.0.1:1'],
    ['host', '--config', '/nonexistent/host.yaml'],
    ['host', '--name', 'a', '--memory', 'lots'],
    ['witness', '--listen', 'here'],
    ['guest', 'build', 'windows', '--out', '/tmp'],
  ];
  const ran = await Promise.all(wrong.map((args) => mirror(...args)));
  for (const [index, { code, stdout, stderr }] of ran.entries()) {
    assert.is(code, 2, `${wrong[index].join(' ')}: ${stderr}`);
    assert.is(stdout, '');
    assert.match(stderr, /^mirror: .+/);
  }
});

cli('no daemon is 3, what is open to others 4, and --json says so as one object', async () => {
  const none = await mirror('list', '--socket', '/nonexistent/control.sock', '--json');
  assert.is(none.code, 3);
  assert.is((JSON.parse(none.stdout) as { error: { code: string } }).error.code, 'NO_DAEMON');
  assert.match(none.stderr, 'start one with mirror host');
  const open = await mirror('switch', '--listen', '0.0.0.0:0');
  assert.is(open.code, 4);
  assert.match(open.stderr, '--insecure');
  const absent = await mirror('start', './none.yaml', '--socket', '/nonexistent/control.sock');
  assert.is(absent.code, 3);
});

cli('version and doctor tell about this machine', async () => {
  const version = await mirror('version', '--json');
  assert.match((JSON.parse(version.stdout) as { version: string }).version, /^\d+\.\d+\.\d+$/);
  assert.is((await mirror('--version')).code, 0);
  const doctor = await mirror('doctor', '--json');
  assert.is(doctor.code, 0);
  assert.is((JSON.parse(doctor.stdout) as { node: string }).node, process.version);
});

function given(name: string, play: (pool: TestPool, a: Host, b: Host) => Promise<void>): void {
  cli(name, () => onPair(name, 500, 60_000, play));
}

const object = (ran: Ran): Record<string, unknown> => {
  assert.is(ran.stdout.trim().split('\n').length, 1, ran.stdout);
  return JSON.parse(ran.stdout) as Record<string, unknown>;
};

const FIELDS = [
  ...['name', 'engine', 'protection', 'role', 'state', 'generation', 'epoch', 'committedEpoch'],
  ...['owner', 'peer', 'pauseMs', 'commitMs', 'epochMs', 'dirtyPages', 'bytesPerEpoch', 'ratio'],
  ...['guestClockLagMs', 'heartbeats', 'warnings'],
];

given('by hand: start, status, unprotect, protect, takeover, stop', async (pool, a, b) => {
  const vm = pool.writeVm('web', {});
  const say = (host: Host, ...args: string[]): Promise<Ran> => pool.mirror(host, args);
  assert.equal(object(await say(a, 'list', '--json')), { vms: [] });
  const early = await say(a, 'start', vm, '--peer', '127.0.0.1:9', '--timeout', '1s');
  assert.is(early.code, 124, early.stderr);
  assert.match(early.stderr, 'goes on by itself');
  assert.is((await say(a, 'status', 'web', '--check')).code, 5);
  assert.is((await say(a, 'start', vm)).code, 4);
  assert.is((await say(a, 'protect', 'web', '--peer', b.address)).code, 0);
  assert.is((await say(a, 'wait', 'web', '--for', 'protected', '--timeout', '20s')).code, 0);
  assert.is((await say(a, 'wait', 'web', '--for', 'failed', '--timeout', '200ms')).code, 124);
  assert.is((await say(a, 'status', '--check')).code, 0);
  for (const host of [a, b]) {
    const status = object(await say(host, 'status', 'web', '--json'));
    for (const field of FIELDS) assert.ok(field in status, `${host.name}: ${field}`);
    assert.is((status['heartbeats'] as unknown[]).length, 1);
  }
  assert.is((await say(a, 'unprotect', 'web')).code, 0);
  assert.is((await say(a, 'wait', 'web', '--for', 'solo', '--timeout', '10s')).code, 0);
  assert.is((await say(a, 'protect', 'web', '--peer', b.address)).code, 0);
  assert.is((await say(a, 'wait', 'web', '--for', 'protected', '--timeout', '20s')).code, 0);
  const onStandby = await say(b, 'stop', 'web');
  assert.is(onStandby.code, 4);
  assert.match(onStandby.stderr, 'give the command to the owner');
  const moved = await say(a, 'takeover', 'web');
  assert.is(moved.code, 0, moved.stderr);
  await pool.waitFor(b, 'web', 'protected');
  const stopped = await say(b, 'stop', 'web', '--json');
  assert.equal(object(stopped), { name: 'web', done: true });
  await pool.waitFor(b, 'web', 'stopped');
  const last = await say(b, 'wait', 'web', '--for', 'protected', '--timeout', '5s');
  assert.is(last.code, 1);
  assert.match(last.stderr, 'it was stopped');
});

given('the console is the same at both hosts, from any place in it', async (pool, a, b) => {
  const vm = pool.writeVm('web', { cmdline: 'ip=10.77.0.2/24 tick=20 dirty=16' });
  assert.is((await pool.mirror(a, ['start', vm, '--peer', b.address])).code, 0);
  const read = async (host: Host, ...args: string[]): Promise<string> => {
    const ran = await pool.mirror(host, ['console', 'web', '--no-follow', ...args]);
    assert.is(ran.code, 0, ran.stderr);
    return ran.stdout;
  };
  const text = await until(10_000, 'some ticks', async () => {
    const all = await read(a);
    return all.includes('tick n=5 ') ? all : null;
  });
  await until(5_000, 'the standby has them', async () => (await read(b)).startsWith(text));
  const tail = await read(a, '--from', '10');
  assert.ok(tail.startsWith(text.slice(10)));
  const json = await pool.mirror(a, ['console', 'web', '--no-follow', '--json']);
  const { bytes } = object(json) as { bytes: string };
  assert.ok(Buffer.from(bytes, 'base64').toString().startsWith(text));
  const follow = running(['console', 'web', '--socket', a.socket]);
  await until(10_000, 'it follows', () => follow.stdout().length > text.length);
  assert.is(await follow.end('SIGINT'), 130);
});

given('a wrong file is 2 with a line for each fault, and starts nothing', async (pool, a) => {
  const path = join(pool.dir, 'wrong.yaml');
  writeFileSync(path, 'name: Wrong\nmemory: 64\nboot: { kernel: nokernel }\n');
  const ran = await pool.mirror(a, ['start', path]);
  assert.is(ran.code, 2);
  assert.match(ran.stderr, `${path}:1:1: name`);
  assert.match(ran.stderr, `${path}:2:1: memory`);
  writeFileSync(path, 'name: wrong\nmemory: 64MiB\nboot: { kernel: nokernel }\n');
  const missing = await pool.mirror(a, ['start', path]);
  assert.is(missing.code, 2);
  assert.match(missing.stderr, 'cannot read');
  assert.equal(object(await pool.mirror(a, ['list', '--json'])), { vms: [] });
});

cli('a host by its file, and services that end in order', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'mirror-cli-'));
  try {
    const file = join(dir, 'host.yaml');
    const stateDir = join(dir, 'h');
    writeFileSync(
      file,
      `name: filed\nlisten: 127.0.0.1:0\narbiter: witness:127.0.0.1:9\nstateDir: ${stateDir}\n`,
    );
    const services = [
      running(['host', '--config', file, '--json']),
      running(['witness', '--listen', '127.0.0.1:0', '--state-dir', join(dir, 'w'), '--json']),
      running(['switch', '--listen', '127.0.0.1:0', '--json']),
    ];
    for (const service of services) {
      await until(10_000, 'it is up', () => service.stdout().includes('\n'));
      const { address } = JSON.parse(service.stdout()) as { address: string };
      assert.match(address, /^127\.0\.0\.1:[1-9]\d*$/);
    }
    const list = await mirror('list', '--socket', join(stateDir, 'control.sock'));
    assert.is(list.code, 0, list.stderr);
    for (const service of services) assert.is(await service.end('SIGTERM'), 0);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

cli('a reader who leaves does not make an error', async () => {
  const child = spawn('sh', ['-c', `"${process.execPath}" "${main}" help | head -1`], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  await within(10_000, 'head', new Promise((resolve) => child.once('exit', resolve)));
  assert.is(errors, '');
});

cli.run();
