/** The built-in guest's service in TypeScript, behind an Ethernet port, with faults to order. */
import type { EthernetPort } from '../../src/drill/packets.js';
import {
  buildArp,
  buildEcho,
  buildUdp,
  parseArp,
  parseEcho,
  parseEthernet,
  parseIp,
  parseIpv4,
  parseMac,
  parseUdp,
} from '../../src/drill/packets.js';

const MAC = parseMac('52:54:00:12:34:56');

export class FakeGuest {
  readonly counters = new Map<number, { seq: number; value: number }>();
  /** Which of the frames to or from the guest get lost, by their number. */
  dropFrame: (n: number) => boolean = () => false;
  /** Answers are sent this often. */
  copies = 1;
  readonly port: EthernetPort = { onFrame: null, send: (frame) => this.#onFrame(frame) };
  readonly #ip: number;
  #frames = 0;

  constructor(ip: string) {
    this.#ip = parseIp(ip);
  }

  #onFrame(frame: Uint8Array): void {
    if (this.dropFrame(this.#frames++)) return;
    const ethernet = parseEthernet(frame)!;
    const arp = parseArp(ethernet);
    if (arp?.operation === 'request' && arp.targetIp === this.#ip) {
      const sender = { senderMac: MAC, senderIp: this.#ip };
      const target = { targetMac: arp.senderMac, targetIp: arp.senderIp };
      this.#reply(buildArp({ operation: 'reply', ...sender, ...target }));
    }
    const ip = parseIpv4(ethernet);
    if (!ip) return;
    const ends = { fromMac: MAC, toMac: ethernet.from, fromIp: ip.to, toIp: ip.from };
    const echo = parseEcho(ip);
    if (echo) this.#reply(buildEcho(ends, { ...echo, kind: 'reply' }));
    const udp = parseUdp(ip);
    if (!udp) return;
    const answer = this.#answer(new TextDecoder().decode(udp.payload));
    const payload = new TextEncoder().encode(answer);
    const { fromPort: toPort, toPort: fromPort } = udp;
    const answered = buildUdp(ends, { fromPort, toPort, payload });
    for (let i = 0; i < this.copies; i += 1) this.#reply(answered);
  }

  #answer(request: string): string {
    const [verb, client, seqText] = request.split(' ');
    const id = Number(client);
    const counter = this.counters.get(id) ?? { seq: 0, value: 0 };
    if (verb === 'INC') {
      const seq = Number(seqText);
      if (seq < counter.seq) return `STALE ${id} ${seq}`;
      if (seq > counter.seq) counter.value += 1;
      counter.seq = seq;
      this.counters.set(id, counter);
    }
    return `${id} ${counter.seq} ${counter.value}`;
  }

  #reply(frame: Uint8Array): void {
    if (this.dropFrame(this.#frames++)) return;
    setImmediate(() => this.port.onFrame?.(frame));
  }
}
