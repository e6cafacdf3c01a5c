/** Which paired host may make this one stand by for which VM: checked before anything is made. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Proposal } from '../../src/core/record.js';
import { Daemon } from '../../src/host/daemon.js';
import { askPeer, probePeer } from '../../src/host/peer-control.js';
import { dialVm, type OwnerClaim, type VmConnection } from '../../src/host/vm-dial.js';
import { connectTo, dialPinned } from '../../src/wire/dial.js';
import { askLine } from '../../src/wire/line-exchange.js';
import { encodePreamble, type Preamble } from '../../src/wire/preamble.js';
import { startTls } from '../../src/wire/tls.js';
import { TrustedWitness } from '../pool/trusted-witness.js';
import { ANSWER_MS, callTo, codeOf, hungUpOn, Member } from '../wire/secure-rig.js';
import { until, within } from '../within.js';

const vmEntry = fileURLToPath(new URL('./fake-vm.js', import.meta.url));
const admission = suite('admission');

const ROOM_BYTES = 64 << 20;

/** Host b is a daemon; hosts a and c are paired with it and with the witness. */
class Scene {
  readonly dir = mkdtempSync(join(tmpdir(), 'mirror-admission-'));
  readonly faults: string[] = [];
  readonly claim: OwnerClaim = {
    ...{ vmName: 'web', vmUuid: randomUUID(), incarnation: 'a1', generation: 1 },
  };
  witness!: TrustedWitness;
  daemon!: Daemon;
  a!: Member;
  c!: Member;
  address = '';

  async start(): Promise<void> {
    this.witness = await TrustedWitness.start();
    this.daemon = new Daemon(
      {
        ...{ name: 'b', listen: '127.0.0.1:0', advertise: null, stateDir: join(this.dir, 'b') },
        ...{ arbiter: `witness:${this.witness.address}`, detectMs: 1_000, insecure: false },
        ...{ accelerator: 'auto', memoryBytes: ROOM_BYTES },
      },
      { vmEntry, onFault: (text) => void this.faults.push(text) },
    );
    this.address = await this.daemon.listen();
    [this.a, this.c] = [await Member.start('a'), await Member.start('c')];
    for (const keeper of [this.daemon.keeper, this.a.keeper, this.c.keeper])
      await this.witness.admit(keeper);
    for (const { keeper } of [this.a, this.c])
      await keeper.pairing.join(null, this.daemon.keeper.pairing.token(60_000).token);
    await this.record(1);
  }

  /** Host a becomes, or stays, the owner of the VM. */
  async record(generation: number): Promise<void> {
    const { vmName: vm, vmUuid, incarnation: ownerIncarnation } = this.claim;
    const proposal: Proposal = {
      ...{ vm, vmUuid, generation, mode: 'solo', owner: 'a', ownerIncarnation },
      ...{ peer: '', peerIncarnation: '', baseEpoch: 0, diskLegs: {} },
    };
    const client = this.witness.connect(this.a.security);
    assert.is((await client.cas(vmUuid, generation - 1, proposal)).outcome, 'ok');
    client.close();
  }

  dial(as: Member, change: Partial<OwnerClaim> = {}): Promise<VmConnection> {
    return dialVm(as.security, this.address, { ...this.claim, ...change }, ANSWER_MS);
  }

  async ticket(): Promise<string> {
    const known = this.a.security.trust.byName('b')!;
    const { socket } = await dialPinned(this.a.security, known, callTo(this));
    const answer = await askLine(socket, { op: 'stand-by', ...this.claim }, ANSWER_MS);
    return String(answer['ticket']);
  }

  async close(): Promise<void> {
    await this.daemon.close();
    this.a.close();
    this.c.close();
    await this.witness.close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function given(name: string, play: (scene: Scene) => Promise<void>): void {
  admission(name, async () => {
    const scene = new Scene();
    try {
      await scene.start();
      await within(30_000, name, play(scene));
    } finally {
      await scene.close();
    }
  });
}

const vmPreamble = ({ claim }: Scene, more: Partial<Preamble>): Buffer => {
  const { vmUuid, vmName } = claim;
  return encodePreamble({ versions: [1], kind: 'vm', vmUuid, vmName, role: 'owner', ...more });
};

given('the owner that the record names gets a process, and talks to it by TLS', async (scene) => {
  const { socket, peer } = await scene.dial(scene.a);
  assert.is(peer, 'b');
  const first = new Promise<Buffer>((resolve) => socket.once('data', resolve));
  assert.match(String(await first), /^served by \d+/);
  assert.is(scene.daemon.find('web').init.vmUuid, scene.claim.vmUuid);
  socket.destroy();
});

given('a known host that claims the VM of another: refused before anything is made', async (
  scene,
) => {
  const { c, daemon, faults } = scene;
  for (let i = 0; i < 10; i++) assert.is(await codeOf(scene.dial(c)), 'NOT_YOURS');
  assert.is(await codeOf(scene.dial(c, { incarnation: 'c1' })), 'NOT_YOURS');
  assert.is(await codeOf(scene.dial(c, { vmUuid: randomUUID() })), 'NOT_YOURS', 'no such VM');
  assert.is(await codeOf(scene.dial(scene.a, { vmName: 'other' })), 'NOT_YOURS');
  assert.equal(daemon.list(), []);
  const told = faults.filter((text) => text.includes('claims VM'));
  assert.is(told.length, 2, 'once for each of the two hosts');
  assert.match(told[0], 'host c claims VM web, which the record gives to host a');
});

given('a stale generation or another incarnation of the owner is refused', async (scene) => {
  await scene.record(2);
  const { a, daemon } = scene;
  assert.is(await codeOf(scene.dial(a)), 'STALE');
  assert.is(await codeOf(scene.dial(a, { generation: 3 })), 'STALE');
  assert.is(await codeOf(scene.dial(a, { generation: 2, incarnation: 'a0' })), 'STALE');
  assert.equal(daemon.list(), []);
  (await scene.dial(a, { generation: 2 })).socket.destroy();
});

given('without the word of the arbiter nobody is let in', async (scene) => {
  await scene.witness.server.close();
  assert.is(await codeOf(scene.dial(scene.a)), 'BUSY');
  assert.equal(scene.daemon.list(), []);
});

given('a ticket counts once; none, or one that was made up, not at all', async (scene) => {
  const { address, daemon } = scene;
  for (const ticket of [undefined, '', 'f'.repeat(32)])
    await hungUpOn(address, vmPreamble(scene, { tls: true, ...(ticket && { ticket }) }));
  assert.equal(daemon.list(), []);
  const ticket = await scene.ticket();
  const first = await connectTo(address, ANSWER_MS);
  first.write(vmPreamble(scene, { tls: true, ticket }));
  await until(5_000, 'a process', () => daemon.list().length === 1);
  const { pid } = daemon.find('web');
  await hungUpOn(address, vmPreamble(scene, { tls: true, ticket }));
  assert.is(daemon.find('web').pid, pid, 'no second one');
  assert.match(scene.faults.at(-1) ?? '', 'nobody asked for');
  first.destroy();
});

given('who stole a ticket still has to be the host that it was given to', async (scene) => {
  const ticket = await scene.ticket();
  const raw = await connectTo(scene.address, ANSWER_MS);
  raw.write(vmPreamble(scene, { tls: true, ticket }));
  const { socket } = await startTls(raw, 'client', scene.c.security.identity(), 10_000);
  let heard = 0;
  socket.on('data', (chunk: Buffer) => {
    heard += chunk.length;
  });
  await within(5_000, 'hung up on', new Promise((resolve) => socket.once('close', resolve)));
  assert.is(heard, 0);
  assert.not.ok(scene.daemon.find('web').counts);
});

given('a VM connection in plain is refused, also by the name of a known host', async (scene) => {
  await hungUpOn(scene.address, vmPreamble(scene, {}));
  assert.equal(scene.daemon.list(), []);
  assert.match(scene.faults.at(-1) ?? '', 'without TLS');
});

given('a probe is answered to known hosts only, by the host that was meant only', async (scene) => {
  const { a, address, claim } = scene;
  const probe = { vmUuid: claim.vmUuid, incarnation: '', host: 'b' };
  assert.is(await probePeer(a.security, address, probe, ANSWER_MS), false);
  const { socket } = await scene.dial(a);
  await until(5_000, 'it counts', () => scene.daemon.find('web').counts);
  assert.is(await probePeer(a.security, address, probe, ANSWER_MS), true);
  const other = { ...probe, host: 'c' };
  assert.is(await probePeer(a.security, address, other, ANSWER_MS), 'unknown');
  const stranger = await Member.start('z');
  assert.is(await probePeer(stranger.security, address, probe, ANSWER_MS), 'unknown');
  stranger.close();
  socket.destroy();
});

given('what memory a further VM would have is told to known hosts only', async (scene) => {
  const { a, address, claim } = scene;
  const anything = { vmUuid: '', incarnation: '', host: '' };
  const answer = await askPeer(a.security, address, anything, ANSWER_MS);
  assert.is(answer?.host, 'b');
  assert.is(answer?.room?.bytes, ROOM_BYTES);
  const ofOne = { ...anything, vmUuid: claim.vmUuid };
  assert.is((await askPeer(a.security, address, ofOne, ANSWER_MS))?.room, null);
  const stranger = await Member.start('z');
  assert.is(await askPeer(stranger.security, address, anything, ANSWER_MS), null);
  stranger.close();
});

admission.run();
