/**
 * Keeps a host's pairings: stays in touch with peers, tells them of a new key before it is used,
 * and raises the alarm before a certificate expires. Hosts and the witness run the same.
 *
 * A rotation has no moment at which a peer refuses: the new certificate is announced over
 * connections that the old one vouches for, and becomes this host's only once every peer has said
 * that it pinned it. Connections that are up are not touched.
 */
import { isSelfSigned, readCertificate, type Certificate } from './certificate.js';
import { dialPinned } from './dial.js';
import { askLine, wordOf, type Line } from './line-exchange.js';
import { Pairing, type PairingOptions } from './pairing.js';
import { preambleOf } from './preamble.js';
import { shortForm, TrustError, type Security } from './security.js';
import { checkNotExpired } from './tls.js';
import type { Peer, PeerKind } from './trust-store.js';

const DIAL_MS_MAX = 3_000;
const ANSWER_MS_MAX = 5_000;
const EXCHANGE_EVERY_MS = 60_000;
const ALARM_BEFORE_MS = 30 * 86_400_000;
const ALARM_EVERY_MS = 86_400_000;
const PINS_TOLD_MAX = 4;


export interface Alarm {
  readonly code: 'CERT_EXPIRES' | 'CERT_EXPIRED' | 'NOT_PAIRED';
  readonly text: string;
}

export interface PeerRow {
  readonly name: string;
  readonly kind: PeerKind;
  readonly self: boolean;
  readonly address: string;
  /** SHA-256 of the certificate that counts now. */
  readonly fingerprint: string;
  readonly expires: string;
  readonly reachable: boolean;
  /** Its next certificate is pinned already. */
  readonly rotating: boolean;
}

export interface Rotation {
  readonly done: boolean;
  readonly fingerprint: string;
  /** Who has yet to pin the new certificate. */
  readonly waitingFor: readonly string[];
}

export class TrustKeeper {
  readonly pairing: Pairing;
  private readonly options: PairingOptions;
  /** What each peer said that it has pinned of this host. */
  private readonly pinnedBy = new Map<string, readonly string[]>();
  private timer: NodeJS.Timeout | null = null;
  private alarmedAtMs = -Infinity;

  constructor(options: PairingOptions) {
    this.options = options;
    this.pairing = new Pairing(options);
  }

  start(everyMs = EXCHANGE_EVERY_MS): void {
    this.alarm();
    void this.exchangeAll();
    this.timer = setInterval(() => void this.round(), everyMs);
    this.timer.unref();
  }

  stop(): void {
    if (this.timer) clearInterval(this.timer);
  }

  /** What this host shows now. */
  get certificate(): Certificate {
    return this.security.identity().certificate;
  }

  forget(name: string): void {
    this.security.trust.forget(name);
    this.pinnedBy.delete(name);
    this.options.say(`${name} is forgotten: its connections are refused from now on`);
  }

  // --- Keeping in touch -----------------------------------------------------------------------

  /** Told by a peer of its address and its next key; tells ours in return. */
  exchanged(peer: Peer, caller: Certificate, request: Line): object {
    this.hear(peer, caller, request);
    return this.news(peer.name);
  }

  async hosts(): Promise<PeerRow[]> {
    const { certificate } = this;
    const reached = await this.exchangeAll();
    const own: PeerRow = {
      ...{ name: this.security.name, kind: this.options.kind, self: true, reachable: true },
      ...{ address: this.options.address(), fingerprint: certificate.fingerprint },
      expires: new Date(certificate.notAfterMs).toISOString(),
      rotating: this.security.identities.next() !== null,
    };
    const others = this.security.trust.peers().map(({ name, kind, addresses, pins }) => ({
      ...{ name, kind, self: false, address: addresses[0] ?? '' },
      ...{ fingerprint: pins[0].sha256, expires: pins[0].notAfter },
      ...{ reachable: reached.has(name), rotating: pins.length > 1 },
    }));
    return [own, ...others];
  }

  private async round(): Promise<void> {
    this.alarm();
    await this.exchangeAll();
    this.finishRotation(false);
  }

  /** The names of those that answered. */
  private async exchangeAll(): Promise<Set<string>> {
    const peers = this.security.trust.peers();
    const reached = await Promise.all(peers.map((peer) => this.exchange(peer)));
    return new Set(peers.filter((_, at) => reached[at]).map(({ name }) => name));
  }

  private async exchange(peer: Peer): Promise<boolean> {
    for (const address of peer.addresses) {
      try {
        // Once more if it told of a new key: it waits to hear that this host has pinned it.
        if (await this.exchangeAt(address, peer.name)) await this.exchangeAt(address, peer.name);
        return true;
      } catch {
        // Not there now, or somebody else: its other address, or the next round.
      }
    }
    return false;
  }

  /** True if there is a new pin of the peer's now. */
  private async exchangeAt(address: string, name: string): Promise<boolean> {
    const peer = this.security.trust.byName(name);
    if (!peer) return false;
    const call = { address, preamble: preambleOf('control'), deadlineMs: DIAL_MS_MAX };
    const secured = await dialPinned(this.security, peer, call);
    const request = { op: 'exchange', ...this.news(name) };
    const answer = await askLine(secured.socket, request, ANSWER_MS_MAX);
    this.hear(peer, secured.certificate, answer);
    const newest = this.security.trust.byName(name)?.pins.at(-1);
    return newest?.sha256 !== peer.pins.at(-1)?.sha256;
  }

  private news(name: string): object {
    const next = this.security.identities.next()?.certificate.der.toString('base64') ?? null;
    const pinned = this.security.trust.byName(name)?.pins.map(({ sha256 }) => sha256) ?? [];
    return { address: this.options.address(), next, pinned };
  }

  private hear({ name }: Peer, shown: Certificate, line: Line): void {
    const { trust } = this.security;
    trust.settle(name, shown.fingerprint);
    trust.learn(name, { address: wordOf(line, 'address'), next: nextOf(name, line['next']) });
    const pinned = Array.isArray(line['pinned']) ? line['pinned'].slice(0, PINS_TOLD_MAX) : [];
    this.pinnedBy.set(name, pinned.map(String));
  }

  // --- Keys that come and go ------------------------------------------------------------------

  /** Makes a new key, or goes on with one that some peers have yet to hear of. */
  async rotate(force: boolean): Promise<Rotation> {
    const { identities, name } = this.security;
    if (!identities.next()) identities.makeNext(name);
    await this.exchangeAll();
    const rotation = this.finishRotation(force);
    if (rotation.done) await this.exchangeAll();
    return rotation;
  }

  private finishRotation(force: boolean): Rotation {
    const { identities, trust } = this.security;
    const next = identities.next();
    const { fingerprint } = (next ?? identities.current()).certificate;
    if (!next) return { done: true, fingerprint, waitingFor: [] };
    const waitingFor = trust
      .peers()
      .map(({ name }) => name)
      .filter((name) => !(this.pinnedBy.get(name) ?? []).includes(fingerprint));
    if (waitingFor.length > 0 && !force) return { done: false, fingerprint, waitingFor };
    identities.switchToNext();
    this.options.say(`this host has a new certificate (SHA-256 ${shortForm(fingerprint)})`);
    return { done: true, fingerprint, waitingFor };
  }

  /** What an operator has to see to soon. */
  alarms(): Alarm[] {
    const { identities, trust, name } = this.security;
    const own = {
      ...{ who: `this host (${name})`, where: 'here' },
      endMs: identities.current().certificate.notAfterMs,
    };
    const others = trust.peers().map((peer) => ({
      ...{ who: `${peer.kind} ${peer.name}`, where: 'there' },
      endMs: Date.parse(peer.pins.at(-1)?.notAfter ?? ''),
    }));
    const ends = [own, ...others].flatMap(({ who, where, endMs }) => alarmOf(who, where, endMs));
    return [...(this.options.needs ?? []).flatMap((address) => this.unpaired(address)), ...ends];
  }

  private unpaired(address: string): Alarm[] {
    try {
      this.security.routeTo(address);
      return [];
    } catch (error) {
      if (!(error instanceof TrustError)) throw error;
      const text =
        `the arbiter at ${address} is not paired with this host: no VM can start or change hosts ` +
        `here; run mirror token there, and here mirror join ${address} --token T`;
      return [{ code: 'NOT_PAIRED', text }];
    }
  }

  private alarm(): void {
    const nowMs = performance.now();
    if (nowMs - this.alarmedAtMs < ALARM_EVERY_MS) return;
    this.alarmedAtMs = nowMs;
    for (const { text } of this.alarms()) this.options.say(text);
  }

  private get security(): Security {
    return this.options.security;
  }
}

function alarmOf(who: string, where: string, endMs: number): Alarm[] {
  const leftMs = endMs - Date.now();
  if (leftMs > ALARM_BEFORE_MS) return [];
  const day = new Date(endMs).toISOString().slice(0, 10);
  if (leftMs < 0) {
    const cure = 'new connections are refused; run mirror rotate --force there and pair it anew';
    return [{ code: 'CERT_EXPIRED', text: `the certificate of ${who} expired on ${day}: ${cure}` }];
  }
  const text = `the certificate of ${who} expires on ${day}: run mirror rotate ${where}`;
  return [{ code: 'CERT_EXPIRES', text }];
}

/** The certificate that a peer will use next, which it has made itself and for itself. */
function nextOf(name: string, value: unknown): Certificate | null {
  if (typeof value !== 'string') return null;
  const next = readCertificate(Buffer.from(value, 'base64'));
  checkNotExpired(next);
  if (next.name === name && isSelfSigned(next)) return next;
  throw new TrustError('BAD_CERTIFICATE', `${name} announces a certificate that is not its own`);
}
