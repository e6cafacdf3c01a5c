/**
 * What one host (or witness) holds its connections to: who it is, whom it knows, and where plain
 * connections may still go.
 *
 * Until it is paired for the first time, plain connections between loopback addresses are let
 * through, so that a pool on one machine is simple. From the first pairing on there are none, in
 * either direction, unless a person said `--insecure`; and an address that belongs to a paired peer
 * is never dialled in plain, whatever was said.
 */
import type { Socket } from 'node:net';
import { MirrorError } from '../core/errors.js';
import { isLoopback, parseAddress } from './address.js';
import type { Certificate } from './certificate.js';
import { IdentityStore, type Identity } from './identity.js';
import { pinOf, TrustStore, type Peer } from './trust-store.js';

export interface SecurityOptions {
  readonly stateDir: string;
  readonly name: string;
  /** A person allows plain connections anywhere. */
  readonly insecure: boolean;
}

/** Codes: NOT_PAIRED, STRANGER, PLAIN_REFUSED. */
export class TrustError extends MirrorError {}

export class Security {
  readonly name: string;
  readonly identities: IdentityStore;
  readonly trust: TrustStore;
  private readonly insecure: boolean;

  constructor({ stateDir, name, insecure }: SecurityOptions) {
    this.name = name;
    this.insecure = insecure;
    this.identities = new IdentityStore(stateDir);
    this.trust = new TrustStore(stateDir);
  }

  /** Makes the identity on the first start; the state directory must be this process's own. */
  prepare(): void {
    if (!this.identities.has()) {
      this.identities.make(this.name);
      return;
    }
    const { name } = this.identities.current().certificate;
    if (name === this.name) return;
    if (this.trust.everUsed)
      throw new MirrorError(
        'BAD_IDENTITY',
        `this state directory is of ${name}, and others know it as that: nothing was started; ` +
          `use --name ${name}, or a new state directory`,
      );
    this.identities.make(this.name);
  }

  identity(): Identity {
    return this.identities.current();
  }

  /** Whom to expect at an address, or that it may be dialled in plain; throws if neither. */
  routeTo(address: string): Peer | 'plain' {
    const peer = this.trust.byAddress(address);
    if (peer) return peer;
    if (this.insecure) return 'plain';
    if (!this.trust.everUsed && isLoopback(parseAddress(address).host)) return 'plain';
    throw notPaired(address);
  }

  /** The same for the daemon of this host, which knows its own certificate. */
  routeToSelf(address: string): Peer | 'plain' {
    const mayBePlain = this.insecure || isLoopback(parseAddress(address).host);
    return !this.trust.everUsed && mayBePlain ? 'plain' : this.own();
  }

  /** Throws if it is of nobody known here. */
  recognise(certificate: Certificate): Peer {
    const { name, fingerprint } = certificate;
    const peer = this.trust.byFingerprint(fingerprint) ?? this.self(fingerprint);
    if (peer) return peer;
    throw new TrustError(
      'STRANGER',
      `a certificate that is not known here (SHA-256 ${shortForm(fingerprint)}, ` +
        `it says ${name}): pair the two with mirror token and mirror join`,
    );
  }

  /** Throws unless a plain connection may be taken. */
  checkPlain({ remoteAddress = '', localAddress = '' }: Socket): void {
    if (this.insecure) return;
    const both = isLoopback(unmapped(remoteAddress)) && isLoopback(unmapped(localAddress));
    if (both && !this.trust.everUsed) return;
    throw new TrustError(
      'PLAIN_REFUSED',
      'a connection without TLS: pair the two with mirror token and mirror join',
    );
  }

  /** The processes of this host ask its own daemon, too. */
  private self(fingerprint: string): Peer | null {
    const own = this.own();
    return own.pins.some(({ sha256 }) => sha256 === fingerprint) ? own : null;
  }

  private own(): Peer {
    const all = [this.identities.current(), this.identities.next()].filter((one) => one !== null);
    const pins = all.map(({ certificate }) => pinOf(certificate));
    return { name: this.name, kind: 'host', addresses: [], since: '', pins };
  }
}

/** Throws unless the certificate is one that is pinned for this peer. */
export function checkPin({ name, pins }: Pick<Peer, 'name' | 'pins'>, shown: Certificate): void {
  if (pins.some(({ sha256 }) => sha256 === shown.fingerprint)) return;
  throw new TrustError(
    'STRANGER',
    `who answers is not ${name}: it shows another certificate (SHA-256 ` +
      `${shortForm(shown.fingerprint)}) than was pinned; nothing was sent to it`,
  );
}

export function notPaired(address: string): TrustError {
  return new TrustError(
    'NOT_PAIRED',
    `${address} is not paired with this host: nothing was done; run mirror token there, and here ` +
      `mirror join ${address} --token T`,
  );
}

export const shortForm = (fingerprint: string): string => fingerprint.slice(0, 16);

/** An IPv4 peer of a socket that listens on both. */
const unmapped = (address: string): string => address.replace(/^::ffff:/, '');
