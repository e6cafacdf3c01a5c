/**
 * Whom this host knows: `<state-dir>/peers.json`, by name, with the fingerprints that are pinned.
 * One process writes it, the daemon (or the witness); VM processes read it at each connection.
 */
import * as v from 'valibot';
import { join } from 'node:path';
import { MirrorError } from '../core/errors.js';
import type { Certificate } from './certificate.js';
import { readPrivate, writePrivate } from './private-file.js';

const FILE = 'peers.json';
const PEERS_MAX = 64;
const ADDRESSES_MAX = 4;
const TEXT_MAX = 256;

const text = v.pipe(v.string(), v.maxLength(TEXT_MAX));
const pinSchema = v.object({ sha256: v.pipe(text, v.regex(/^[0-9a-f]{64}$/)), notAfter: text });
const peerSchema = v.object({
  name: text,
  kind: v.picklist(['host', 'witness']),
  addresses: v.pipe(v.array(text), v.maxLength(ADDRESSES_MAX)),
  /** The last is the newest; another before it while that one rotates. */
  pins: v.pipe(v.array(pinSchema), v.minLength(1), v.maxLength(2)),
  since: text,
});
const fileSchema = v.object({ peers: v.pipe(v.array(peerSchema), v.maxLength(PEERS_MAX)) });

export type PeerKind = 'host' | 'witness';

export interface Pin {
  readonly sha256: string;
  readonly notAfter: string;
}

export interface Peer {
  readonly name: string;
  readonly kind: PeerKind;
  /** Where it can be dialled, the best first. */
  readonly addresses: readonly string[];
  readonly pins: readonly Pin[];
  readonly since: string;
}

export const pinOf = ({ fingerprint, notAfterMs }: Certificate): Pin => ({
  sha256: fingerprint,
  notAfter: new Date(notAfterMs).toISOString(),
});

export class TrustStore {
  private readonly dir: string;
  private cached: { text: string; peers: readonly Peer[] } | null = null;

  constructor(stateDir: string) {
    this.dir = stateDir;
  }

  peers(): readonly Peer[] {
    const found = readPrivate(this.dir, FILE);
    if (found === null) return [];
    if (this.cached?.text === found) return this.cached.peers;
    try {
      const { peers } = v.parse(fileSchema, JSON.parse(found));
      this.cached = { text: found, peers };
      return peers;
    } catch (cause) {
      // To take it for empty would open this host to plain connections again.
      const path = join(this.dir, FILE);
      const told = `${path} is damaged: nobody is trusted; put it back from a backup`;
      throw new MirrorError('BAD_STATE', told, { cause });
    }
  }

  /** Somebody has been paired with, once at least: from then on nothing goes in plain. */
  get everUsed(): boolean {
    return readPrivate(this.dir, FILE) !== null;
  }

  byName(name: string): Peer | null {
    return this.peers().find((peer) => peer.name === name) ?? null;
  }

  byAddress(address: string): Peer | null {
    return this.peers().find(({ addresses }) => addresses.includes(address)) ?? null;
  }

  byFingerprint(fingerprint: string): Peer | null {
    return this.peers().find(({ pins }) => pins.some((pin) => pin.sha256 === fingerprint)) ?? null;
  }

  /** A new peer, or the same key again; another key under a known name is refused. */
  add(peer: Omit<Peer, 'since' | 'pins'>, certificate: Certificate): Peer {
    const known = this.byName(peer.name);
    const pin = pinOf(certificate);
    if (known && !known.pins.some(({ sha256 }) => sha256 === pin.sha256))
      throw new MirrorError(
        'NAME_TAKEN',
        `${peer.name} is known here with another key: nothing was changed; if that one is gone, ` +
          `run mirror forget ${peer.name} first`,
      );
    const holder = this.byFingerprint(pin.sha256);
    if (holder && holder.name !== peer.name)
      throw new MirrorError('NAME_TAKEN', `this key belongs to ${holder.name} already`);
    if (!known && this.peers().length >= PEERS_MAX)
      throw new MirrorError('BUSY', `${PEERS_MAX} peers are known already`);
    const since = known?.since ?? new Date().toISOString();
    const addresses = this.free(peer.name, [...peer.addresses, ...(known?.addresses ?? [])]);
    const added: Peer = { ...peer, addresses, pins: known?.pins ?? [pin], since };
    this.write([...this.peers().filter(({ name }) => name !== peer.name), added]);
    return added;
  }

  /** What a peer told of itself over a connection that its old key vouches for. */
  learn(name: string, news: { address: string; next: Certificate | null }): void {
    const known = this.byName(name);
    if (!known) return;
    const addresses = this.free(name, [news.address, ...known.addresses]);
    const pins = news.next ? withNext(known.pins, pinOf(news.next)) : known.pins;
    const taken = news.next && this.byFingerprint(news.next.fingerprint);
    if (taken && taken.name !== name)
      throw new MirrorError('NAME_TAKEN', `the next key of ${name} belongs to ${taken.name}`);
    this.replace(known, { ...known, addresses, pins });
  }

  /** The peer has shown its newest certificate: what came before counts no more. */
  settle(name: string, fingerprint: string): void {
    const known = this.byName(name);
    const newest = known?.pins.at(-1);
    if (!known || !newest || known.pins.length === 1 || newest.sha256 !== fingerprint) return;
    this.replace(known, { ...known, pins: [newest] });
  }

  forget(name: string): void {
    if (!this.byName(name))
      throw new MirrorError('NO_SUCH_HOST', `no host or witness ${name} is known here`);
    this.write(this.peers().filter((peer) => peer.name !== name));
  }

  /** No peer may say that another's address is its own. */
  private free(name: string, addresses: readonly string[]): string[] {
    const others = this.peers().filter((peer) => peer.name !== name);
    const taken = new Set(others.flatMap((peer) => peer.addresses));
    const usable = addresses.filter((address) => address !== '' && !taken.has(address));
    return [...new Set(usable)].slice(0, ADDRESSES_MAX);
  }

  private replace(before: Peer, after: Peer): void {
    if (JSON.stringify(before) === JSON.stringify(after)) return;
    this.write(this.peers().map((peer) => (peer.name === before.name ? after : peer)));
  }

  private write(peers: readonly Peer[]): void {
    writePrivate(this.dir, FILE, `${JSON.stringify({ peers }, null, 2)}\n`);
  }
}

/** The newest last; only what it uses now and what it will use next are accepted. */
function withNext(pins: readonly Pin[], next: Pin): Pin[] {
  const [first] = pins;
  return first.sha256 === next.sha256 ? [...pins] : [first, next];
}
