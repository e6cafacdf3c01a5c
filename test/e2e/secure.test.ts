/** Paired hosts and a paired witness, as real processes: TLS everywhere, and keys that change. */
import { readFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { freePort } from '../../src/cli/demo-pool.js';
import type { Proposal } from '../../src/core/record.js';
import { dialVm, type OwnerClaim } from '../../src/host/vm-dial.js';
import { WitnessClient } from '../../src/pool/witness-client.js';
import { dialAnybody } from '../../src/wire/dial.js';
import { askLine } from '../../src/wire/line-exchange.js';
import { decodePreamble } from '../../src/wire/preamble.js';
import { callTo, codeOf, hungUpOn, Member } from '../wire/secure-rig.js';
import { whatNamespacesNeed } from '../network/namespaces.js';
import { testIf, until, within } from '../within.js';
import { CLIENT_IP, makeLan } from './lan.js';
import { runMirror, TestPool, type Host } from './pool.js';
import { VM, rest, sceneTest, type Scene } from './scene.js';

const secure = suite('secure');
const TLS_HANDSHAKE = 0x16;
const RSS_GROWTH_BYTES_MAX = 32 << 20;
const PAIRED = { paired: true };

async function served({ client }: Scene): Promise<void> {
  const before = client.verdict().ops;
  await until(20_000, 'the client is served', () => client.verdict().ops > before + 20);
}

const ids = (text: string): string[] =>
  (JSON.parse(text) as { hosts: { fingerprint: string }[] }).hosts.map((row) => row.fingerprint);

sceneTest(
  secure,
  'rotation of all three under load: protected all the while; then both hosts die in turn',
  120_000,
  async (play) => {
    const { pool, a, b } = play;
    const before = await pool.waitFor(a, VM, 'protected');
    const old = ids((await pool.mirror(a, ['hosts', '--json'])).stdout);
    for (const socket of [a.socket, b.socket, pool.witnessSocket]) {
      const ran = await runMirror(['rotate', '--json', '--socket', socket], 20_000);
      assert.is((JSON.parse(ran.stdout) as { done: boolean }).done, true, ran.stdout);
      await served(play);
    }
    const anew = ids((await pool.mirror(a, ['hosts', '--json'])).stdout);
    assert.is(anew.length, 3);
    assert.equal(anew.filter((one) => old.includes(one)), []);
    const after = await pool.status(a, VM);
    assert.is(after?.state, 'protected');
    assert.is(after?.generation, before.generation, 'it was never without protection');
    for (const [dies, survives] of [
      [a, b],
      [b, a],
    ]) {
      await pool.kill(dies.process);
      await pool.waitFor(survives, VM, 'solo');
      await served(play);
      await pool.startHost(dies);
      await pool.waitFor(survives, VM, 'protected');
    }
  },
  PAIRED,
);

sceneTest(
  secure,
  'a partition between the hosts: exactly one goes on, and they find each other again',
  90_000,
  async (play) => {
    const { pool, a, b, paths } = play;
    paths.cutHosts();
    const alone = await until(20_000, 'one goes on alone', async () => {
      const states = [await pool.status(a, VM), await pool.status(b, VM)];
      return states.find((status) => status?.state === 'solo') ?? null;
    });
    await served(play);
    paths.heal();
    await pool.waitFor(alone.owner === 'a' ? a : b, VM, 'protected', 40_000);
  },
  PAIRED,
);

sceneTest(
  secure,
  'the witness dies and comes back with its hosts; a takeover works after',
  90_000,
  async (play) => {
    const { pool, a, b } = play;
    await pool.kill(pool.witness);
    await rest(1_000);
    assert.is((await pool.status(a, VM))?.state, 'protected');
    await pool.startWitness();
    await pool.kill(a.process);
    await pool.waitFor(b, VM, 'solo');
    await served(play);
  },
  PAIRED,
);

sceneTest(
  secure,
  'garbage, a stranger and a known host that claims the VM, under load: nothing changes',
  90_000,
  async (play) => {
    const { pool, a, b } = play;
    const before = await pool.waitFor(a, VM, 'protected');
    const ran = await pool.mirror(a, ['status', VM, '--json']);
    const { vmUuid } = JSON.parse(ran.stdout) as { vmUuid: string };
    const siege = await Siege.lay(pool, b, { vmUuid, generation: before.generation });
    try {
      await siege.storm(40);
      const rssBefore = rssBytes(b);
      await siege.storm(200);
      assert.ok(rssBytes(b) - rssBefore < RSS_GROWTH_BYTES_MAX, 'no memory is taken');
      await served(play);
    } finally {
      siege.end();
    }
    const after = await pool.status(a, VM);
    assert.equal([after?.state, after?.generation], ['protected', before.generation]);
    assert.is((await pool.status(b, VM))?.state, 'standby');
    for (const name of ['b', 'witness']) {
      const told = pool.log(name).split('\n').filter((line) => line.startsWith('refused'));
      assert.ok(told.length > 0 && told.length < 10, told.join('\n'));
      assert.ok(told.some((line) => line.includes('host c claims')), told.join('\n'));
    }
  },
  PAIRED,
);

const rssBytes = ({ process }: Host): number => {
  const status = readFileSync(`/proc/${process?.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) << 10;
};

/** Host c is known to host b and to the witness; a stranger calls itself a. */
class Siege {
  private readonly b: Host;
  private readonly ports: string[];
  private readonly claim: OwnerClaim;
  private readonly c: Member;
  private readonly stranger: Member;
  private readonly witness: WitnessClient;

  private constructor(b: Host, ports: string[], claim: OwnerClaim, c: Member, stranger: Member) {
    this.b = b;
    this.ports = ports;
    this.claim = claim;
    this.c = c;
    this.stranger = stranger;
    this.witness = new WitnessClient(ports[1], { deadlineMs: 2_000, security: c.security });
  }

  static async lay(
    pool: TestPool,
    b: Host,
    vm: { vmUuid: string; generation: number },
  ): Promise<Siege> {
    const [c, stranger] = [await Member.start('c'), await Member.start('a')];
    const ports = [b.address, pool.witnessListens];
    for (const [at, socket] of [b.socket, pool.witnessSocket].entries()) {
      const given = await runMirror(['token', '--socket', socket], 10_000);
      await c.keeper.pairing.join(ports[at], given.stdout.trim());
    }
    return new Siege(b, ports, { ...vm, vmName: VM, incarnation: 'c1' }, c, stranger);
  }

  async storm(rounds: number): Promise<void> {
    const { claim, c } = this;
    for (let round = 0; round < rounds; round += 1) {
      for (const port of this.ports) await hungUpOn(port, 'MIRR\xff\xff and garbage');
      const { vmUuid, generation } = claim;
      assert.is(await codeOf(dialVm(c.security, this.b.address, claim, 2_000)), 'NOT_YOURS');
      const theft: Proposal = {
        ...{ vm: VM, vmUuid, generation: generation + 1, mode: 'solo', owner: 'c' },
        ...{ ownerIncarnation: 'c1', peer: '', peerIncarnation: '', baseEpoch: 0, diskLegs: {} },
      };
      assert.is((await this.witness.cas(vmUuid, generation, theft)).outcome, 'unknown');
      if (round % 10 > 0) continue;
      const { socket } = await dialAnybody(this.stranger.security, callTo(this.b));
      assert.is(await codeOf(askLine(socket, { op: 'probe' }, 2_000)), 'STRANGER');
    }
  }

  end(): void {
    this.witness.close();
    this.c.close();
    this.stranger.close();
  }
}

/** Passes everything on, and keeps how each connection began. */
class Recorder {
  readonly beginnings: Buffer[] = [];
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  constructor(port: number) {
    this.server = createServer((near) => {
      const at = this.beginnings.push(Buffer.alloc(0)) - 1;
      const far = connect(port, '127.0.0.1');
      near.on('data', (chunk: Buffer) => {
        if (this.beginnings[at].length < 512)
          this.beginnings[at] = Buffer.concat([this.beginnings[at], chunk]);
      });
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) {
        this.sockets.add(socket);
        socket.on('error', () => socket.destroy());
        socket.on('close', () => this.sockets.delete(socket));
      }
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

function beginsTls(bytes: Buffer): boolean {
  const decoded = decodePreamble(bytes);
  return decoded?.preamble.tls === true && bytes[decoded.byteCount] === TLS_HANDSHAKE;
}

secure('by hand: pairing first, then nothing but TLS on any wire', async () => {
  const pool = new TestPool(500);
  const port = await freePort();
  const recorder = new Recorder(port);
  const play = async (): Promise<void> => {
    await pool.startWitness();
    const toWitness = new Recorder(Number(pool.witnessListens.split(':')[1]));
    try {
      const arbiter = await toWitness.listen();
      const a = await pool.addHost('a', { arbiter });
      const b = await pool.addHost('b', { arbiter, port, advertise: await recorder.listen() });
      await refusedByAll(pool, a, b);
      await pool.pairAll();
      recorder.beginnings.splice(0);
      toWitness.beginnings.splice(0);
      const vm = pool.writeVm(VM, {});
      const started = await pool.mirror(a, ['start', vm, '--peer', 'b']);
      assert.is(started.code, 0, started.stderr);
      assert.ok(recorder.beginnings.length >= 2, 'a question, and the connection of the VM');
      assert.ok(toWitness.beginnings.length >= 2);
      for (const bytes of [...recorder.beginnings, ...toWitness.beginnings])
        assert.ok(beginsTls(bytes), bytes.toString('latin1'));
      const status = await pool.mirror(b, ['hosts']);
      assert.match(status.stdout, /a {2}host {2}.* in reach/);
      assert.match(status.stdout, /witness {2}witness {2}.* in reach/);
    } finally {
      toWitness.close();
    }
  };
  try {
    await within(60_000, 'pairing by hand', play());
  } finally {
    await pool.close();
    recorder.close();
  }
});

/** Once one of two is paired with anybody, the other hears what to do. */
async function refusedByAll(pool: TestPool, a: Host, b: Host): Promise<void> {
  const given = await runMirror(['token', '--socket', pool.witnessSocket], 10_000);
  const token = given.stdout.trim();
  const joined = await pool.mirror(a, ['join', '--token', token]);
  assert.is(joined.code, 0, joined.stderr);
  const replayed = await pool.mirror(b, ['join', '--token', token]);
  assert.is(replayed.code, 4);
  assert.match(replayed.stderr, 'used before');
  const start = await pool.mirror(a, ['start', pool.writeVm(VM, {}), '--peer', b.address]);
  assert.is(start.code, 4);
  assert.match(start.stderr, /run mirror token there, and here mirror join .* --token T/);
}

testIf(
  secure,
  'beyond loopback: nothing in plain, and a takeover between namespaces',
  whatNamespacesNeed(),
  () => within(90_000, 'beyond loopback', betweenNamespaces()),
);

async function betweenNamespaces(): Promise<void> {
  const pool = new TestPool(1_000);
  pool.insecure = false;
  const lan = makeLan();
  try {
    pool.startWitnessIn(lan.client, `${CLIENT_IP}:7710`);
    const a = await pool.addHost('a', { namespace: lan.hosts[0] });
    const b = await pool.addHost('b', { namespace: lan.hosts[1] });
    const vm = pool.writeVm(VM, {});
    const early = await pool.mirror(a, ['start', vm, '--peer', b.address]);
    assert.is(early.code, 4);
    assert.match(early.stderr, `${CLIENT_IP}:7710 is not paired with this host: nothing was done`);
    assert.match(pool.log('a'), `the arbiter at ${CLIENT_IP}:7710 is not paired with this host`);
    await pool.pairAll();
    const started = await pool.mirror(a, ['start', vm, '--peer', b.address]);
    assert.is(started.code, 0, started.stderr);
    await pool.kill(a.process);
    await pool.waitFor(b, VM, 'solo');
    await pool.startHost(a);
    await pool.waitFor(b, VM, 'protected');
  } finally {
    await pool.close();
    lan.remove();
  }
}

secure.run();
