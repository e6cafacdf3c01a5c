/** The built-in guest as it behaves in the embedded machine. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { GuestClient } from '../../src/drill/guest-client.js';
import { GuestEndpoint } from '../../src/drill/guest-endpoint.js';
import { until, within } from '../within.js';
import type { GuestRig } from './guest-rig.js';
import { startGuest } from './guest-rig.js';

const test = suite('built-in guest');
const SELF = { mac: '02:00:00:00:00:01', ip: '10.77.0.1', guestIp: '10.77.0.2' };

/** Runs a guest for a test of at most 20 s, and stops it whatever happens. */
async function withGuest(
  cmdline: string,
  memoryMiB: number,
  work: (rig: GuestRig) => Promise<void>,
): Promise<void> {
  const rig = await startGuest(cmdline, memoryMiB);
  try {
    await within(20_000, `guest with ${cmdline}`, work(rig));
  } finally {
    await rig.stop();
  }
}

function assertSound({ judge }: GuestRig): void {
  assert.equal(judge.faultLines, []);
  assert.equal(judge.broken, []);
}

test('says who it is, ticks in time, echoes lines, and switches itself off', async () => {
  await withGuest('ip=10.77.0.2/24 tick=10 dirty=256', 32, async (rig) => {
    await until(10_000, '100 ticks', () => rig.judge.ticks >= 100);
    assert.match(rig.serial(), /^mirror guest up mem=32768 ip=10\.77\.0\.2\/24\ntick n=1 /);
    rig.type('hello there\r\n');
    await rig.says(/^echo hello there$/m, 2_000);
    rig.type('poweroff\n');
    await until(2_000, 'power-off', () => rig.poweredOff());
    assert.match(rig.serial(), /\nbye\n$/);
    assertSound(rig);
  });
});

test('answers every frame of a burst that its NIC could not hold at once', async () => {
  await withGuest('ip=10.77.0.2/24 tick=10', 16, async (rig) => {
    const burst = { clients: 64, window: 64, retryMs: 15_000 };
    const client = new GuestClient({ port: rig.ethernet, ...SELF, ...burst });
    try {
      await client.connect(10_000);
      // Twice as many at once as the ring has room for.
      client.start(64);
      await until(10_000, 'all answered', () => client.verdict().ops >= 64);
      assert.is(client.verdict().retries, 0);
    } finally {
      client.close();
    }
  });
});

test('loses no tick when the host was late', async () => {
  await withGuest('tick=5 dirty=16', 16, async (rig) => {
    await until(10_000, '20 ticks', () => rig.judge.ticks >= 20);
    const endAt = Date.now() + 300;
    while (Date.now() < endAt); // the machine's thread is held up
    const before = rig.judge.ticks;
    await until(10_000, 'ticks made up', () => rig.judge.ticks >= before + 60);
    await until(10_000, 'in time again', () => rig.judge.timeMs - 5 * rig.judge.ticks < 100);
    assertSound(rig);
  });
});

for (const pattern of ['sparse', 'full', 'random', 'zero']) {
  test(`pattern ${pattern}: verifies what it wrote, and finds damage`, async () => {
    await withGuest(`tick=10 dirty=64 pattern=${pattern}`, 16, async (rig) => {
      await until(10_000, '30 ticks', () => rig.judge.ticks >= 30);
      assertSound(rig);
      await rig.machine.pause();
      const { memory, offset, bytes } = rig.machine.ram;
      // all words above the guest's own first MiB, of which it dirties 64 pages
      const words = new Uint32Array(memory.buffer, offset + (2 << 20), ((bytes >> 20) - 2) << 18);
      const low = new Uint32Array(memory.buffer, offset + 0x109000, 64 * 1024);
      for (const part of [low, words]) part.forEach((word, i) => (part[i] = word ^ 0x80));
      rig.machine.resume();
      await rig.says(/^FAULT n=\d+ address=[0-9a-f]{8} want=[0-9a-f]{8} got=[0-9a-f]{8}$/m, 5_000);
      assert.ok(rig.judge.faultCount > 0);
      const after = rig.judge.ticks;
      await until(5_000, 'ticks go on', () => rig.judge.ticks > after + 5);
    });
  });
}

test('dirty=all uses nearly all of memory', async () => {
  await withGuest('tick=10 dirty=all pattern=full', 16, async (rig) => {
    await until(10_000, '2 ticks', () => rig.judge.ticks >= 2);
    await rig.machine.pause();
    const { memory, offset, bytes } = rig.machine.ram;
    const ram = new Uint32Array(memory.buffer, offset, bytes / 4);
    let used = 0;
    for (let page = 0; page < bytes / 4096; page += 1) {
      if (ram.subarray(page * 1024, page * 1024 + 1024).some((word) => word !== 0)) used += 1;
    }
    assert.ok(used > 0.92 * (bytes / 4096), `${used} of ${bytes / 4096} pages`);
    assertSound(rig);
  });
});

test('load=spin counts its work', async () => {
  await withGuest('tick=10 dirty=16 load=spin', 16, async (rig) => {
    await until(10_000, '50 ticks', () => rig.judge.ticks >= 50);
    const early = rig.judge.work;
    const ticks = rig.judge.ticks;
    await until(10_000, '50 more', () => rig.judge.ticks >= ticks + 50);
    assert.ok(rig.judge.work > early + 100, `${early} then ${rig.judge.work} units`);
    assertSound(rig);
  });
});

test('counts for 64 clients at a time, and answers pings', async () => {
  await withGuest('ip=10.77.0.2/24 tick=10 dirty=64', 16, async (rig) => {
    const client = new GuestClient({ port: rig.ethernet, ...SELF, clients: 64 });
    try {
      const verdict = await client.run(3_000, 15_000);
      assert.is(verdict.ops, 3_000);
      assert.is(verdict.lost, 0);
      assert.is(verdict.invented, 0);
      const pingMs = await client.ping(2_000);
      const rtt = `rtt p50 ${verdict.rttMsP50.toFixed(2)} max ${verdict.rttMsMax.toFixed(1)} ms`;
      process.stdout.write(`NOTE guest: ${rtt}, ping ${pingMs.toFixed(2)} ms\n`);
    } finally {
      client.close();
    }
    assertSound(rig);
  });
});

test('answers each request of the service as documented', async () => {
  await withGuest('ip=10.77.0.2/24 tick=50 dirty=16', 16, async (rig) => {
    const endpoint = new GuestEndpoint(rig.ethernet, SELF);
    await endpoint.resolve(10_000);
    const ask = async (request: string): Promise<string> => {
      let answer: string | null = null;
      endpoint.onUdp = (_port, text) => {
        answer = text;
      };
      endpoint.sendUdp(5_000, request);
      return await until(2_000, `an answer to ${request}`, () => answer);
    };
    const expected: [string, string][] = [
      ['INC 5 1', '5 1 1'],
      ['INC 5 1', '5 1 1'],
      ['INC 5 7', '5 7 2'],
      ['INC 5 6', 'STALE 5 6'],
      ['GET 5', '5 7 2'],
      ['GET 6', '6 0 0'],
      ['INC 4294967295 4294967295', '4294967295 4294967295 1'],
      ['INC 4294967296 1', 'ERR usage: INC <client> <seq>'],
      ['INC 5 0', 'ERR seq'],
      ['INC 5', 'ERR usage: INC <client> <seq>'],
      ['GET', 'ERR usage: GET <client>'],
      ['PUT 1 text', 'ERR no disk'],
      ['READ 1', 'ERR no disk'],
      ['x'.repeat(1_400), 'ERR what?'],
      ['', 'ERR what?'],
    ];
    for (const [request, answer] of expected) assert.is(await ask(request), answer, request);
    for (let client = 100; client < 354; client += 1) await ask(`INC ${client} 1`);
    assert.is(await ask('INC 999 1'), 'ERR clients');
  });
});

test.run();
