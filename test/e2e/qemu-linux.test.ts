/**
 * Linux on a stock QEMU, on bridges of network namespaces that this test makes: HTTP, one long TCP
 * connection and a redis go on through the loss of either host.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { buildLinux, type LinuxGuest } from '../../src/guest/linux-builder.js';
import { whatQemuNeeds } from '../../src/machine/qemu/qemu-host.js';
import { whatLinuxNeeds } from '../guest/guest-rig.js';
import { whatNamespacesNeed } from '../network/namespaces.js';
import { testIf, until, within } from '../within.js';
import type { LanVerdict } from './lan-client.js';
import { ConsoleTap } from './console-tap.js';
import { CLIENT_IP, GUEST_IP, makeLan, type Lan } from './lan.js';
import { processTree, TestPool, type Host } from './pool.js';

import { rest } from './scene.js';

const linux = suite('linux on qemu');
const lanClient = fileURLToPath(new URL('./lan-client.js', import.meta.url));
/** `MIRROR_TAKEOVERS=20` for the whole; CI does fewer. */
const TAKEOVERS = Number(process.env['MIRROR_TAKEOVERS'] ?? 5);
const TEST_MS_MAX = 120_000 + TAKEOVERS * 30_000;
const WITNESS = `${CLIENT_IP}:7900`;
const HTTP_BYTES = 200_000;
const START_SCRIPT = `#!/bin/sh
i=0
while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done | head -c ${HTTP_BYTES} > /srv/page
redis-server --save "" --appendonly no --protected-mode no --bind 0.0.0.0
`;

interface Stage {
  readonly lan: Lan;
  readonly pool: TestPool;
  readonly a: Host;
  readonly b: Host;
  readonly vm: string;
}

let guest: LinuxGuest = { kernel: '', initrd: '', cmdline: '' };

async function guestIn(folder: string): Promise<LinuxGuest> {
  const start = join(folder, 'start.sh');
  writeFileSync(start, START_SCRIPT);
  const log = (line: string): void => void process.stdout.write(`${line}\n`);
  const packages = ['redis-server'];
  const build = buildLinux({ outDir: folder, log, architecture: 'amd64', packages, start });
  return within(150_000, 'build', build);
}

/** Two hosts and a witness on a network of their own, and the Linux guest's file. */
async function onLan(play: (stage: Stage) => Promise<void>): Promise<void> {
  const pool = new TestPool(1_000);
  const lan = makeLan();
  try {
    pool.startWitnessIn(lan.client, WITNESS);
    const [a, b] = await Promise.all(
      ['a', 'b'].map((name, index) =>
        pool.addHost(name, { arbiter: WITNESS, port: 7901, namespace: lan.hosts[index] }),
      ),
    );
    const vm = pool.writeVm('tux', {
      ...{ boot: `kernel: "${guest.kernel}", initrd: "${guest.initrd}"` },
      ...{ cmdline: `${guest.cmdline} ip=${GUEST_IP}/24 serve=http,echo` },
      ...{ memory: '160MiB', epoch: '50ms', engine: 'qemu', attach: 'tap:br0' },
    });
    await within(TEST_MS_MAX, 'the play', play({ lan, pool, a, b, vm }));
  } catch (error) {
    for (const { name } of pool.hosts) process.stderr.write(`log of ${name}:\n${pool.log(name)}\n`);
    throw error;
  } finally {
    await pool.close();
    lan.remove();
  }
}

class LanClient {
  private readonly child: ChildProcess;
  private text = '';

  constructor(namespace: string) {
    const args = ['netns', 'exec', namespace, process.execPath, lanClient, GUEST_IP];
    this.child = spawn('ip', args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.text += chunk.toString();
    });
  }

  connected(): Promise<unknown> {
    return until(60_000, 'the client is connected', () => this.text.includes('connected\n'));
  }

  async finish(): Promise<LanVerdict> {
    this.child.stdin?.write('stop\n');
    const line = await until(90_000, 'the verdict', () => /^\{.*\}$/m.exec(this.text));
    return JSON.parse(line[0]) as LanVerdict;
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}

/** The page, by curl from the client's namespace. */
function curl({ lan }: Stage): Promise<string> {
  const url = `http://${GUEST_IP}/page`;
  const args = ['netns', 'exec', lan.client, 'curl', '-sS', '--max-time', '20', url];
  return new Promise((resolve, reject) => {
    execFile('ip', args, { maxBuffer: 8 << 20 }, (error, stdout, stderr) =>
      error ? reject(new Error(`curl: ${stderr}`)) : resolve(stdout),
    );
  });
}

function qemuOf(host: Host): number {
  const name = (pid: number): string => readFileSync(`/proc/${pid}/comm`, 'utf8');
  const [pid] = processTree(host.process?.pid ?? 0).filter((pid) => name(pid).startsWith('qemu'));
  return pid;
}

async function play(stage: Stage): Promise<void> {
  const { lan, pool, a, b, vm } = stage;
  const started = await pool.mirror(a, ['start', vm, '--peer', b.address], 90_000);
  assert.is(started.code, 0, started.stderr);
  const client = new LanClient(lan.client);
  try {
    await client.connected();
    const page = await until(20_000, 'the page', () => curl(stage).catch(() => ''));
    assert.is(page.length, HTTP_BYTES);
    let [owner, standby] = [a, b];
    for (let round = 0; round < TAKEOVERS; round += 1) {
      await rest(1_000);
      // In turn: the daemon, QEMU alone.
      if (round % 2 === 0) await pool.kill(owner.process);
      else process.kill(qemuOf(owner), 'SIGKILL');
      const state = round % 2 === 0 ? 'solo' : 'protected';
      const after = await pool.waitFor(standby, 'tux', state);
      assert.is(after.owner, standby.name);
      assert.is(await curl(stage), page, `the page after takeover ${round + 1}`);
      if (round % 2 === 0) await pool.startHost(owner);
      await pool.waitFor(standby, 'tux', 'protected');
      [owner, standby] = [standby, owner];
    }
    await pool.kill(standby.process);
    await pool.waitFor(owner, 'tux', 'solo');
    assert.is(await curl(stage), page, 'the page without a standby');
    const verdict = await client.finish();
    process.stdout.write(`NOTE ${TAKEOVERS} takeovers: ${JSON.stringify(verdict)}\n`);
    assert.is(verdict.wrongBytes, 0);
    assert.is(verdict.resets, 0);
    assert.is(verdict.lostWrites, 0);
    assert.ok(verdict.echoedBytes > 20_000 * TAKEOVERS && verdict.ackedWrites > 20 * TAKEOVERS);
  } finally {
    client.kill();
  }
}

/** Reboots by its own command, and waits until it is up again. */
async function reboot(tap: ConsoleTap): Promise<void> {
  const before = tap.text.split('mirror linux up').length;
  tap.type('reboot -f\n');
  const again = (): boolean => tap.text.split('mirror linux up').length === before + 1;
  await until(60_000, 'it is up again', again);
  await until(20_000, 'a prompt', () => /mirror# \S*$/.test(tap.text));
}

async function rebootAndOff(stage: Stage): Promise<void> {
  const { pool, a, b, vm } = stage;
  const started = await pool.mirror(a, ['start', vm, '--peer', b.address], 90_000);
  assert.is(started.code, 0, started.stderr);
  const { generation } = await pool.waitFor(a, 'tux', 'protected');
  const tap = new ConsoleTap(a.socket, 'tux');
  await until(60_000, 'a prompt', () => tap.text.includes('mirror# '));
  await reboot(tap);
  const after = await pool.waitFor(a, 'tux', 'protected');
  assert.is(after.generation, generation, 'protected all along');
  await pool.kill(a.process);
  await pool.waitFor(b, 'tux', 'solo');
  tap.follow(b.socket);
  await pool.startHost(a);
  await pool.waitFor(b, 'tux', 'protected');
  await reboot(tap);
  tap.type('poweroff -f\n');
  await pool.waitFor(b, 'tux', 'stopped');
  tap.close();
  await until(10_000, 'no process is left', () => processTree(b.process?.pid ?? 0).length === 1);
}

const missing = whatQemuNeeds() || whatLinuxNeeds() || whatNamespacesNeed();
const folder = mkdtempSync(join(tmpdir(), 'mirror-lan-'));
linux.before(async () => {
  if (missing === '') guest = await guestIn(folder);
});
linux.after(() => rmSync(folder, { recursive: true }));
testIf(linux, 'one TCP connection, HTTP and redis through takeovers', missing, () => onLan(play));
testIf(linux, 'a reboot stays protected; switched off, it is stopped', missing, () =>
  onLan(rebootAndOff),
);

linux.run();
