/** What two VM processes say to each other before the core hears of the connection. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FileStore, sha256 } from '../../src/host/file-store.js';
import { VmLink } from '../../src/host/vm-link.js';
import { loadFrameCodec } from '../../src/wire/frame.js';
import { within } from '../within.js';

const link = suite('vm link');
const TEST_MS_MAX = 10_000;

async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const dialed = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const pair: [Socket, Socket] = [dialed, await accepted];
  server.close();
  return pair;
}

async function linked(
  play: (owner: VmLink, standby: VmLink, store: FileStore) => Promise<void>,
): Promise<void> {
  const codec = await loadFrameCodec();
  const [dialed, accepted] = await socketPair();
  const dir = mkdtempSync(join(tmpdir(), 'mirror-link-'));
  const [owner, standby] = [new VmLink(dialed, codec), new VmLink(accepted, codec)];
  try {
    await within(TEST_MS_MAX, 'the link', play(owner, standby, new FileStore(dir)));
  } finally {
    owner.close();
    standby.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

const kernel = new Uint8Array(700_000).map((_, i) => (i * 31) & 0xff);
const file = { name: 'kernel', sha256: sha256(kernel), bytes: kernel.length };
const offer = { specJson: '{}', address: '127.0.0.1:1', files: [file] };

link('the standby fetches the files that it lacks, whole', () =>
  linked(async (owner, standby, store) => {
    const offering = owner.offer(offer, [kernel]);
    assert.equal((await standby.accept(store)).files, [file]);
    standby.accepted();
    await offering;
    assert.equal(await store.get(file.sha256), Buffer.from(kernel));
  }),
);

link('an owner that is refused hears why', () =>
  linked(async (owner, standby, store) => {
    const offering = owner.offer(offer, [kernel]).then(
      () => 'accepted',
      (error: Error) => error.message,
    );
    await standby.accept(store);
    standby.refuse('QEMU is not installed here');
    assert.is(await offering, 'the peer cannot stand by: QEMU is not installed here');
  }),
);

link.run();
