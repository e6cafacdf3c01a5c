/** An IP host of one peer: resolves the guest by ARP, and exchanges UDP and ICMP echo with it. */
import { MirrorError } from '../core/errors.js';
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
} from './packets.js';
import type { Ends, EthernetPort, Ip, Mac } from './packets.js';

export const GUEST_PORT = 7007;
const ASK_AGAIN_MS = 100;

/** Not `performance.now`, which an embedded machine in this process may have replaced. */
export const clockMs = (): number => Number(process.hrtime.bigint()) / 1e6;

export class GuestUnreachable extends MirrorError {
  constructor(what: string, deadlineMs: number) {
    super('guest-unreachable', `${what}: no answer from the guest within ${deadlineMs} ms`);
  }
}

export interface EndpointAddresses {
  mac: string;
  ip: string;
  guestIp: string;
}

export class GuestEndpoint {
  /** Called with each datagram from the guest's service. */
  onUdp: ((toPort: number, text: string) => void) | null = null;
  readonly #port: EthernetPort;
  readonly #mac: Mac;
  readonly #ip: Ip;
  readonly #guestIp: Ip;
  #guestMac: Mac | null = null;
  #onEcho: ((seq: number) => void) | null = null;
  #echoSeq = 0;

  constructor(port: EthernetPort, addresses: EndpointAddresses) {
    this.#port = port;
    this.#mac = parseMac(addresses.mac);
    this.#ip = parseIp(addresses.ip);
    this.#guestIp = parseIp(addresses.guestIp);
    port.onFrame = (frame) => this.#onFrame(frame);
  }

  /** Finds the guest's MAC address. */
  async resolve(deadlineMs: number): Promise<void> {
    await this.#ask('ARP', deadlineMs, () => this.#guestMac !== null, () => this.#sendArp());
  }

  /** The round trip of one ICMP echo in `ms`. */
  async ping(deadlineMs: number): Promise<number> {
    await this.resolve(deadlineMs);
    let sentAt = clockMs();
    let rttMs = -1;
    this.#onEcho = (seq) => {
      if (seq === this.#echoSeq) rttMs = clockMs() - sentAt;
    };
    const send = (): void => {
      this.#echoSeq = (this.#echoSeq + 1) & 0xffff;
      sentAt = clockMs();
      const payload = new Uint8Array(32).fill(0x6d);
      const echo = { kind: 'request', id: 7, seq: this.#echoSeq, payload } as const;
      this.#port.send(buildEcho(this.#ends(), echo));
    };
    await this.#ask('ping', deadlineMs, () => rttMs >= 0, send);
    return rttMs;
  }

  /** Sends to the guest's service; asks for its address first if that is not known. */
  sendUdp(fromPort: number, text: string): void {
    if (this.#guestMac === null) {
      this.#sendArp();
      return;
    }
    const payload = new TextEncoder().encode(text);
    this.#port.send(buildUdp(this.#ends(), { fromPort, toPort: GUEST_PORT, payload }));
  }

  close(): void {
    this.#port.onFrame = null;
    this.onUdp = null;
  }

  async #ask(
    what: string,
    deadlineMs: number,
    done: () => boolean,
    send: () => void,
  ): Promise<void> {
    const endAt = clockMs() + deadlineMs;
    let askAt = 0;
    while (!done()) {
      if (clockMs() > endAt) throw new GuestUnreachable(what, deadlineMs);
      if (clockMs() >= askAt) {
        askAt = clockMs() + ASK_AGAIN_MS;
        send();
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  #ends(): Ends {
    if (this.#guestMac === null) throw new Error('the guest is not resolved');
    const toMac = this.#guestMac;
    return { fromMac: this.#mac, toMac, fromIp: this.#ip, toIp: this.#guestIp };
  }

  #sendArp(): void {
    const sender = { senderMac: this.#mac, senderIp: this.#ip };
    const target = { targetMac: new Uint8Array(6), targetIp: this.#guestIp };
    this.#port.send(buildArp({ operation: 'request', ...sender, ...target }));
  }

  #onFrame(frame: Uint8Array): void {
    const ethernet = parseEthernet(frame);
    if (!ethernet) return;
    const arp = parseArp(ethernet);
    if (arp) {
      if (arp.senderIp === this.#guestIp) this.#guestMac = arp.senderMac;
      if (arp.operation === 'request' && arp.targetIp === this.#ip) {
        const sender = { senderMac: this.#mac, senderIp: this.#ip };
        const target = { targetMac: arp.senderMac, targetIp: arp.senderIp };
        this.#port.send(buildArp({ operation: 'reply', ...sender, ...target }));
      }
      return;
    }
    const ip = parseIpv4(ethernet);
    if (!ip || ip.to !== this.#ip || ip.from !== this.#guestIp) return;
    const udp = parseUdp(ip);
    if (udp && udp.fromPort === GUEST_PORT) {
      this.onUdp?.(udp.toPort, new TextDecoder().decode(udp.payload));
    }
    const echo = parseEcho(ip);
    if (echo?.kind === 'reply' && echo.id === 7) this.#onEcho?.(echo.seq);
  }
}
