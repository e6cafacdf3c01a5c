/**
 * Keeps a host's pairings: gives and takes tokens, tells peers of a new key before it is used, and
 * raises the alarm before a certificate expires. Hosts and the witness run the same.
 *
 * A rotation has no moment at which a peer refuses: the new certificate is announced over
 * connections that the old one vouches for, and becomes this host's only once every peer has said
 * that it pinned it. Connections that are up are not touched.
 */
import type { Certificate } from './certificate.js';
import { isSelfSigned, readCertificate } from './certificate.js';
import { dialAnybody, dialPinned } from './dial.js';
import {
  decodeToken,
  encodeToken,
  proofOf,
  sameProof,
  TokenDesk,
  type Handshake,
} from './join-token.js';
import { askLine } from './line-exchange.js';
import { preambleOf } from './preamble.js';
import { checkPin, shortForm, TrustError, type Security } from './security.js';
import { checkNotExpired } from './tls.js';
import type { Peer, PeerKind } from './trust-store.js';

const HOST_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
const DIAL_MS_MAX = 3_000;
const ANSWER_MS_MAX = 5_000;
const EXCHANGE_EVERY_MS = 60_000;
const ALARM_BEFORE_MS = 30 * 86_400_000;
const ALARM_EVERY_MS = 86_400_000;
const PINS_TOLD_MAX = 4;

export interface KeeperOptions {
  readonly security: Security;
  readonly kind: PeerKind;
  /** Where peers can dial it; empty: only they know. */
  readonly address: () => string;
  readonly say: (text: string) => void;
}

type Line = Readonly<Record<string, unknown>>;

export interface Alarm {
  readonly code: 'CERT_EXPIRES' | 'CERT_EXPIRED';
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
  private readonly options: KeeperOptions;
  private readonly desk = new TokenDesk();
  /** What each peer said that it has pinned of this host. */
  private readonly pinnedBy = new Map<string, readonly string[]>();
  private timer: NodeJS.Timeout | null = null;
  private alarmedAtMs = -Infinity;

  constructor(options: KeeperOptions) {
    this.options = options;
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

  // --- Pairing --------------------------------------------------------------------------------

  token(forMs: number): { token: string; expiresAtMs: number; address: string } {
    const { certificate } = this;
    const given = this.desk.give(this.options.address(), certificate.fingerprint, forMs);
    return {
      token: encodeToken(given),
      expiresAtMs: given.expiresAtMs,
      address: given.address,
    };
  }

  /** `address`: where the giver of the token is, if not where the token says. */
  async join(address: string | null, text: string): Promise<Peer> {
    const { security } = this;
    const token = decodeToken(text);
    const target = address ?? token.address;
    if (target === '')
      throw new TrustError('BAD_TOKEN', 'the token does not say where its host is: give HOST:PORT');
    const own = security.identity().certificate.fingerprint;
    const preamble = preambleOf('control');
    const { socket, certificate } = await dialAnybody(security, target, preamble, DIAL_MS_MAX);
    try {
      checkGiver(token.fingerprint, certificate, target);
      this.checkName(certificate.name);
      this.checkFree(target, certificate.name);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    const parties: Handshake = { giver: certificate.fingerprint, joiner: own };
    const proof = proofOf(token.secret, 'joiner', parties);
    const request = { op: 'join', proof, address: this.options.address() };
    const answer = await askLine(socket, request, ANSWER_MS_MAX);
    if (!sameProof(proofOf(token.secret, 'giver', parties), text_(answer, 'proof')))
      throw new TrustError('STRANGER', `${target} does not know the token: nothing was changed`);
    const kind = answer['kind'] === 'witness' ? 'witness' : 'host';
    const addresses = [text_(answer, 'address'), target];
    return this.paired({ name: certificate.name, kind, addresses }, certificate);
  }

  /** The other side of `join`: from a stranger, who has nothing but the token. */
  joined(caller: Certificate, request: Line): object {
    const giver = this.certificate.fingerprint;
    const parties = { giver, joiner: caller.fingerprint };
    const { secret } = this.desk.take(text_(request, 'proof'), parties);
    this.checkName(caller.name);
    const addresses = [text_(request, 'address')];
    this.paired({ name: caller.name, kind: 'host', addresses }, caller);
    const { kind, address } = this.options;
    return { kind, address: address(), proof: proofOf(secret, 'giver', parties) };
  }

  forget(name: string): void {
    this.security.trust.forget(name);
    this.pinnedBy.delete(name);
    this.options.say(`${name} is forgotten: its connections are refused from now on`);
  }

  private paired(peer: Omit<Peer, 'since' | 'pins'>, certificate: Certificate): Peer {
    const added = this.security.trust.add(peer, certificate);
    const { kind, name } = added;
    this.options.say(`paired with ${kind} ${name} (SHA-256 ${shortForm(certificate.fingerprint)})`);
    return added;
  }

  private checkName(name: string): void {
    if (!HOST_NAME.test(name)) throw new TrustError('BAD_CERTIFICATE', 'its name is no name');
    if (name === this.security.name)
      throw new TrustError('NAME_TAKEN', `both hosts are named ${name}: give one another --name`);
  }

  /** Else the new one could never be dialled there. */
  private checkFree(address: string, name: string): void {
    const holder = this.security.trust.byAddress(address);
    if (!holder || holder.name === name) return;
    throw new TrustError(
      'NAME_TAKEN',
      `${address} belongs to ${holder.kind} ${holder.name} as far as is known here, not to ` +
        `${name}: nothing was changed; if that one is gone, run mirror forget ${holder.name} first`,
    );
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
    const preamble = preambleOf('control');
    const secured = await dialPinned(this.security, address, peer, preamble, DIAL_MS_MAX);
    const request = { op: 'exchange', ...this.news(name) };
    const answer = await askLine(secured.socket, request, ANSWER_MS_MAX);
    const before = peer.pins.length;
    this.hear(peer, secured.certificate, answer);
    return (this.security.trust.byName(name)?.pins.length ?? 0) > before;
  }

  private news(name: string): object {
    const next = this.security.identities.next()?.certificate.der.toString('base64') ?? null;
    const pinned = this.security.trust.byName(name)?.pins.map(({ sha256 }) => sha256) ?? [];
    const { kind, address } = this.options;
    return { kind, address: address(), next, pinned };
  }

  private hear({ name }: Peer, shown: Certificate, line: Line): void {
    const { trust } = this.security;
    trust.settle(name, shown.fingerprint);
    trust.learn(name, { address: text_(line, 'address'), next: nextOf(name, line['next']) });
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
    return [own, ...others].flatMap(({ who, where, endMs }) => alarmOf(who, where, endMs));
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

/** Before anything is sent: is it the host that gave the token? */
function checkGiver(fingerprint: string, shown: Certificate, address: string): void {
  const name = `the host at ${address} that gave the token`;
  checkPin({ name, pins: [{ sha256: fingerprint, notAfter: '' }] }, shown);
}

/** The certificate that a peer will use next, which it has made itself and for itself. */
function nextOf(name: string, value: unknown): Certificate | null {
  if (typeof value !== 'string') return null;
  const next = readCertificate(Buffer.from(value, 'base64'));
  checkNotExpired(next);
  if (next.name === name && isSelfSigned(next)) return next;
  throw new TrustError('BAD_CERTIFICATE', `${name} announces a certificate that is not its own`);
}

function text_(line: Line, key: string): string {
  const value = line[key];
  return typeof value === 'string' ? value : '';
}
