/** Packets of the drill clients: known bytes, round trips, and refusal of what is damaged. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  buildArp,
  buildEcho,
  buildUdp,
  checksum,
  formatIp,
  parseArp,
  parseEcho,
  parseEthernet,
  parseIp,
  parseIpv4,
  parseMac,
  parseUdp,
} from '../../src/drill/packets.js';
import { TickJudge } from '../../src/drill/tick-judge.js';

const test = suite('packets and ticks');
const ends = {
  fromMac: parseMac('02:00:00:00:00:01'),
  toMac: parseMac('52:54:00:12:34:56'),
  fromIp: parseIp('10.77.0.1'),
  toIp: parseIp('192.168.255.2'),
};

test('addresses', () => {
  assert.is(formatIp(parseIp('192.168.255.2')), '192.168.255.2');
  assert.throws(() => parseIp('1.2.3'));
  assert.throws(() => parseIp('1.2.3.256'));
  assert.throws(() => parseMac('02:00:00:00:00'));
});

test('the checksum of RFC 1071', () => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assert.is(checksum(bytes), 0xffff ^ 0xddf2);
});

test('UDP there and back; any damaged byte of the packet is refused', () => {
  const payload = new TextEncoder().encode('INC 1 23');
  const frame = buildUdp(ends, { fromPort: 40_007, toPort: 7_007, payload });
  const parse = (bytes: Uint8Array): string | null => {
    const ip = parseIpv4(parseEthernet(bytes)!);
    const udp = ip && parseUdp(ip);
    return udp && `${udp.fromPort} ${udp.toPort} ${new TextDecoder().decode(udp.payload)}`;
  };
  assert.is(parse(frame), '40007 7007 INC 1 23');
  for (let at = 14; at < 14 + 36; at += 1) {
    const damaged = frame.slice();
    damaged[at] ^= 0x10;
    assert.is(parse(damaged), null, `byte ${at}`);
  }
  for (let bytes = 0; bytes < 14 + 36; bytes += 1) {
    const ethernet = parseEthernet(frame.subarray(0, bytes));
    assert.is(ethernet && parseIpv4(ethernet), null, `${bytes} bytes`);
  }
});

test('ARP and echo there and back', () => {
  const sender = { senderMac: ends.fromMac, senderIp: ends.fromIp };
  const target = { targetMac: ends.toMac, targetIp: ends.toIp };
  const arp = { operation: 'reply', ...sender, ...target } as const;
  assert.equal(parseArp(parseEthernet(buildArp(arp))!), arp);
  const echo = { kind: 'request', id: 7, seq: 65_535, payload: Uint8Array.of(1, 2, 3) } as const;
  const parsed = parseEcho(parseIpv4(parseEthernet(buildEcho(ends, echo))!)!);
  assert.is(parsed?.seq, 65_535);
  assert.equal([...parsed!.payload], [1, 2, 3]);
});

test('ticks: lines of the guest in order are sound; a gap, a repeat or a fault is not', () => {
  const lines = [
    'mirror guest up mem=65536 ip=10.77.0.2/24',
    'tick n=1 t=113 sum=1b08d560',
    'tick n=2 t=136 sum=a2b74faa',
    'tick n=3 t=157 sum=16b857e4',
  ];
  const judged = (text: string): TickJudge => {
    const judge = new TickJudge();
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length; at += 7) judge.push(bytes.subarray(at, at + 7));
    return judge;
  };
  const text = `${lines.join('\n')}\n`;
  assert.equal([judged(text).ticks, judged(text).brokenCount], [3, 0]);
  assert.ok(judged(text.replace(/tick n=2.*\n/, '')).brokenCount > 0);
  assert.ok(judged(text.replace(/(tick n=2.*\n)/, '$1$1')).brokenCount > 0);
  assert.ok(judged(text.replace('t=136', 't=137')).brokenCount > 0);
  assert.ok(judged(text.replace('n=2 t', 'n=2 x')).brokenCount > 0);
  assert.is(judged(`${text}FAULT n=4 address=00400000\n`).faultCount, 1);
});

test.run();
