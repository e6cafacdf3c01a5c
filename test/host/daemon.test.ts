/** The daemon: who gets a process, who speaks for a VM, what is remembered, what is refused. */
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { statusOf } from '../../src/host/child-status.js';
import { ControlServer } from '../../src/host/control-server.js';
import { Daemon } from '../../src/host/daemon.js';
import { probePeer } from '../../src/host/peer-control.js';
import type { VmChild } from '../../src/host/vm-child.js';
import { parseVmConfig, type VmConfig } from '../../src/host/vm-config.js';
import { ControlClient } from '../../src/cli/control-client.js';
import { encodePreamble } from '../../src/wire/preamble.js';
import { Security } from '../../src/wire/security.js';
import { until, within } from '../within.js';

const vmEntry = fileURLToPath(new URL('./fake-vm.js', import.meta.url));
const daemons = suite('daemon');

class Scene {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-daemon-'));
  readonly faults: string[] = [];
  readonly sockets: Socket[] = [];
  readonly security = new Security({
    ...{ stateDir: join(this.dir, 'a'), name: 'b', insecure: false },
  });
  daemon!: Daemon;
  address = '';

  async start(): Promise<void> {
    const settings = { name: 'a', listen: '127.0.0.1:0', stateDir: join(this.dir, 'a') };
    const onFault = (text: string): void => void this.faults.push(text);
    this.daemon = new Daemon(
      {
        ...settings,
        advertise: null,
        arbiter: 'witness:127.0.0.1:1',
        detectMs: 500,
        insecure: false,
        accelerator: 'auto',
        memoryBytes: null,
      },
      { vmEntry, onFault },
    );
    this.address = await this.daemon.listen();
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await this.daemon.close();
    rmSync(this.dir, { recursive: true, force: true });
  }

  run(config: VmConfig, peer: string | null = null): Promise<VmChild> {
    return this.daemon.start({ config, peer, auditEvery: 0 });
  }

  /** Dials as an owner would; resolves to the first line, or to '' if hung up on. */
  dial(vmName: string, vmUuid: string, rest = ''): Promise<string> {
    const [host, port] = this.address.split(':');
    return new Promise((resolve) => {
      const socket = connect(Number(port), host, () => {
        const preamble = { versions: [1], kind: 'vm', vmUuid, vmName, role: 'owner' } as const;
        socket.write(Buffer.concat([encodePreamble(preamble), Buffer.from(rest)]));
      });
      this.sockets.push(socket);
      socket.on('error', () => {});
      socket.once('data', (chunk: Buffer) => resolve(chunk.toString().trim()));
      socket.once('close', () => resolve(''));
    });
  }
}

function given(name: string, play: (scene: Scene) => Promise<void>): void {
  daemons(name, async () => {
    const scene = new Scene();
    try {
      await scene.start();
      await within(20_000, name, play(scene));
    } finally {
      await scene.close();
    }
  });
}

const vm = (name: string, more = ''): VmConfig =>
  parseVmConfig(`name: ${name}\nmemory: 8MiB\nboot: { kernel: builtin }\n${more}`, '/x.yaml');

const counts = (child: VmChild): Promise<boolean> =>
  until(5_000, 'the process counts', () => child.counts);

async function refused(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => null,
    (refusal: unknown) => refusal as { code: string },
  );
  if (!error) throw new Error('it was not refused');
  return error.code;
}

given('an owner gets a standby of its own, with the bytes it sent ahead', async (scene) => {
  const uuid = randomUUID();
  const first = await scene.dial('web', uuid, 'early');
  assert.match(first, /^served by \d+, rest early$/);
  const child = scene.daemon.find('web');
  assert.is(child.init.role, 'secondary');
  await counts(child);
  const second = await scene.dial('web', uuid);
  assert.is.not(second, first);
  await until(5_000, 'the newer speaks', () => scene.daemon.find('web') !== child);
  assert.is(child.ended, null, 'the older one ends by itself, or takes over');
});

given('a stray connection does not take the place of the owner', async (scene) => {
  const owner = await scene.run(vm('raw-web'));
  await counts(owner);
  await scene.dial('raw-web', owner.init.vmUuid);
  assert.is(scene.daemon.find('raw-web'), owner);
  assert.is(await scene.dial('raw-web', randomUUID()), '', 'another VM of the same name');
  assert.match(scene.faults.at(-1) ?? '', 'another VM named raw-web');
});

given('names that are no names make no process and no file', async (scene) => {
  for (const name of ['../../evil', '', 'A', 'x'.repeat(80)])
    assert.is(await scene.dial(name, randomUUID()), '');
  assert.is(await scene.dial('web', '../../../evil-uuid-of-thirty-six-chars'), '');
  assert.equal(scene.daemon.list(), []);
  assert.equal(readdirSync(scene.dir), ['a']);
});

given('standbys that prove nothing are bounded', async (scene) => {
  const uuid = randomUUID();
  const lines = await Promise.all(Array.from({ length: 9 }, () => scene.dial('raw-web', uuid)));
  assert.is(lines.filter((line) => line !== '').length, 4);
  assert.match(scene.faults.at(-1) ?? '', 'too many standbys');
});

given('the last owner is started again after the daemon, with its peer', async (scene) => {
  const child = await scene.run(vm('web'), '127.0.0.1:7702');
  await counts(child);
  await scene.dial('other', randomUUID());
  await until(5_000, 'the other counts', () => scene.daemon.find('other').counts);
  await scene.daemon.close();
  assert.ok(child.ended);
  await scene.start();
  const again = scene.daemon.find('web');
  assert.is(again.init.vmUuid, child.init.vmUuid);
  assert.is(again.init.start, 'cold-boot');
  assert.is(again.init.peer, '127.0.0.1:7702');
  assert.is(scene.daemon.list().length, 1, 'a standby is not started without its owner');
});

given('superseded: not started again; stopped: forgotten', async (scene) => {
  for (const [name, state] of [
    ['web', 'superseded'],
    ['db', 'stopped'],
  ] as const) {
    const child = await scene.run(vm(name));
    await counts(child);
    await child.request('end', { state });
    await child.exited;
    const status = await statusOf(child);
    assert.is(status.state, state);
    assert.match(status.reason ?? '', /another host|it was stopped/);
    assert.is(status.pid, 0);
  }
  await scene.daemon.close();
  await scene.start();
  assert.equal(scene.daemon.list(), []);
  assert.throws(() => scene.daemon.find('web'), /no process here serves web/);
  assert.throws(() => scene.daemon.find('db'), /there is no VM db/);
});

given('a start that fails leaves nothing behind', async (scene) => {
  const child = await scene.run(vm('bad-web'));
  await child.exited;
  assert.is(child.endCode, 'ALREADY_RUNNING');
  assert.match(child.ended?.reason ?? '', 'already solo on host z');
  const missing = vm('lost', '').boot;
  const config = { ...vm('lost'), boot: { ...missing, kernel: '/nonexistent/vmlinuz' } };
  assert.is(await refused(scene.run(config)), 'BAD_CONFIG');
  await until(5_000, 'forgotten', () => readdirSync(join(scene.dir, 'a', 'vms')).length === 0);
});

given('of two starts of one VM at once, one is refused', async (scene) => {
  const both = await Promise.allSettled([scene.run(vm('web')), scene.run(vm('web'))]);
  assert.is(both.filter((one) => one.status === 'fulfilled').length, 1);
  assert.is(await refused(scene.run(vm('web'))), 'ALREADY_RUNNING');
  assert.is(await refused(scene.run(vm('db'), scene.address)), 'REFUSED');
  assert.is(await refused(scene.run(vm('db'), '10.1.2.3:7701')), 'NOT_PAIRED');
  assert.is(await refused(scene.run(vm('db'), 'NO/WHERE')), 'BAD_ADDRESS');
  assert.is(await refused(scene.run(vm('db'), 'nowhere')), 'NO_SUCH_HOST');
});

given('a damaged memory of a VM is told, and not taken for none', async (scene) => {
  const child = await scene.run(vm('web'));
  await counts(child);
  await scene.daemon.close();
  writeFileSync(join(scene.dir, 'a', 'vms', 'web.json'), '{"name":"web","vmU');
  await scene.start();
  assert.match(scene.faults.at(-1) ?? '', 'web.json is damaged');
  assert.is(await refused(scene.run(vm('web'))), 'BAD_STATE');
  const other = await scene.run(vm('db'));
  await counts(other);
});

given('a probe is answered for that incarnation, on that host, or not at all', async (scene) => {
  const child = await scene.run(vm('web'));
  await counts(child);
  const { vmUuid } = child.init;
  const ask = (incarnation: string, host = 'a'): Promise<boolean | 'unknown'> =>
    probePeer(scene.security, scene.address, { vmUuid, incarnation, host }, 2_000);
  assert.is(await ask(child.incarnation), true);
  assert.is(await ask('somebody else'), false);
  assert.is(await ask(''), true, 'any that holds an image');
  assert.is(await ask(child.incarnation, 'b'), 'unknown', 'it is not host b that answered');
  child.kill();
  await child.exited;
  assert.is(await ask(child.incarnation), false);
  await scene.daemon.close();
  assert.is(await ask(child.incarnation), 'unknown');
  await scene.start();
});

given('a VM process that is frozen or killed: its last words stand in for it', async (scene) => {
  const child = await scene.run(vm('web'));
  await counts(child);
  process.kill(child.pid, 'SIGSTOP');
  const status = await statusOf(child);
  assert.is(status.state, 'solo');
  assert.is(status.warnings[0].code, 'NO_ANSWER');
  assert.is(await refused(child.request('hang', {}, 50)), 'TIMEOUT');
  const pending = refused(child.request('hang', {}));
  child.kill();
  assert.is(await pending, 'VM_ENDED');
  assert.is((await statusOf(child)).state, 'failed');
});

given('the control socket is closed to others, and answers every fault', async (scene) => {
  const control = new ControlServer(scene.daemon);
  const path = join(scene.dir, 'a', 'control.sock');
  try {
    await control.listen(path);
    assert.is(statSync(path).mode & 0o777, 0o600);
    assert.is(statSync(join(scene.dir, 'a')).mode & 0o777, 0o700);
    const client = new ControlClient(path);
    assert.equal(await client.call('list'), []);
    assert.is(await refused(client.call('status', { vm: 'none' })), 'NO_SUCH_VM');
    assert.is(await refused(client.call('status', {})), 'BAD_REQUEST');
    assert.is(await refused(client.call('dance')), 'BAD_REQUEST');
    const bad = client.call('start', { yaml: 'name: web\n', path: '/web.yaml' });
    assert.is(await refused(bad), 'BAD_CONFIG');
    const yaml = 'name: bad-web\nmemory: 8MiB\nboot: { kernel: builtin }\n';
    assert.is(await refused(client.call('start', { yaml, path: '/w.yaml' })), 'ALREADY_RUNNING');
    const good = yaml.replace('bad-web', 'web');
    assert.equal(await client.call('start', { yaml: good, path: '/w.yaml' }), { name: 'web' });
    const protect = { command: 'protect', peer: '10.0.0.1:1' };
    assert.is(await refused(client.vm('web', 'command', protect)), 'NOT_PAIRED');
  } finally {
    control.close();
  }
});

daemons('a certificate that ends soon is told in the log and in each status', async () => {
  const scene = new Scene();
  const toMs = Date.now() + 10 * 86_400_000;
  scene.security.identities.make('a', { fromMs: 0, toMs });
  const control = { server: null as ControlServer | null };
  try {
    chmodSync(join(scene.dir, 'a'), 0o700);
    await scene.start();
    const day = new Date(toMs).toISOString().slice(0, 10);
    const text = `the certificate of this host (a) expires on ${day}: run mirror rotate here`;
    assert.is(scene.faults.at(-1), text);
    const child = await scene.run(vm('web'));
    await counts(child);
    control.server = new ControlServer(scene.daemon);
    const path = join(scene.dir, 'a', 'control.sock');
    await control.server.listen(path);
    const client = new ControlClient(path);
    const status = await client.call<{ warnings: unknown[] }>('status', { vm: 'web' });
    assert.equal(status.warnings, [{ code: 'CERT_EXPIRES', text }]);
    await client.call('rotate');
    const after = await client.call<{ warnings: unknown[] }>('status', { vm: 'web' });
    assert.equal(after.warnings, []);
  } finally {
    control.server?.close();
    await scene.close();
  }
});

daemons('a state directory that is in use, or open to others, is not touched', async () => {
  const scene = new Scene();
  try {
    await scene.start();
    const stateDir = join(scene.dir, 'a');
    const config = { name: 'z', listen: '127.0.0.1:0', advertise: null, memoryBytes: null };
    const arbiter = 'witness:127.0.0.1:1';
    const open = (path: string): Daemon =>
      new Daemon({
        ...{ ...config, arbiter, stateDir: path, detectMs: 500 },
        ...{ insecure: false, accelerator: 'auto' },
      });
    assert.is(await refused(open(stateDir).listen()), 'STATE_DIR_IN_USE');
    const shared = mkdtempSync(join(scene.dir, 'shared-'));
    chmodSync(shared, 0o755);
    assert.is(await refused(open(shared).listen()), 'STATE_DIR_OPEN');
    assert.equal(readdirSync(shared), []);
  } finally {
    await scene.close();
  }
});

daemons.run();
