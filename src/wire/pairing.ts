/**
 * Two hosts come to know each other, or a host and a witness: one gives a token, the other joins
 * with it, and each pins the certificate of the other.
 */
import type { Certificate } from './certificate.js';
import { dialAnybody } from './dial.js';
import {
  decodeToken,
  encodeToken,
  proofOf,
  sameProof,
  TokenDesk,
  type Handshake,
} from './join-token.js';
import { askLine, wordOf, type Line } from './line-exchange.js';
import { preambleOf } from './preamble.js';
import { checkPin, shortForm, TrustError, type Security } from './security.js';
import type { Peer, PeerKind } from './trust-store.js';

const HOST_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
const DIAL_MS_MAX = 3_000;
const ANSWER_MS_MAX = 5_000;

export interface PairingOptions {
  readonly security: Security;
  readonly kind: PeerKind;
  /** Where peers can dial it; empty: only they know. */
  readonly address: () => string;
  /** Addresses without which this host is of no use. */
  readonly needs?: readonly string[];
  readonly say: (text: string) => void;
}

export class Pairing {
  private readonly options: PairingOptions;
  private readonly desk = new TokenDesk();

  constructor(options: PairingOptions) {
    this.options = options;
  }

  /** For one other host, once. */
  token(forMs: number): { token: string; expiresAtMs: number; address: string } {
    const { certificate } = this.options.security.identity();
    const given = this.desk.give(this.options.address(), certificate.fingerprint, forMs);
    return {
      token: encodeToken(given),
      expiresAtMs: given.expiresAtMs,
      address: given.address,
    };
  }

  /** `address`: where the giver of the token is, if not where the token says. */
  async join(address: string | null, text: string): Promise<Peer> {
    const { security } = this.options;
    const token = decodeToken(text);
    const target = address ?? token.address;
    if (target === '')
      throw new TrustError('BAD_TOKEN', 'the token does not say where its host is: give HOST:PORT');
    const own = security.identity().certificate.fingerprint;
    const call = { address: target, preamble: preambleOf('control'), deadlineMs: DIAL_MS_MAX };
    const { socket, certificate } = await dialAnybody(security, call);
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
    if (!sameProof(proofOf(token.secret, 'giver', parties), wordOf(answer, 'proof')))
      throw new TrustError('STRANGER', `${target} does not know the token: nothing was changed`);
    const kind = answer['kind'] === 'witness' ? 'witness' : 'host';
    const addresses = [wordOf(answer, 'address'), target];
    return this.paired({ name: certificate.name, kind, addresses }, certificate);
  }

  /** The other side of `join`: from a stranger, who has nothing but the token. */
  joined(caller: Certificate, request: Line): object {
    const giver = this.options.security.identity().certificate.fingerprint;
    const parties = { giver, joiner: caller.fingerprint };
    const { secret } = this.desk.take(wordOf(request, 'proof'), parties);
    this.checkName(caller.name);
    const addresses = [wordOf(request, 'address')];
    this.paired({ name: caller.name, kind: 'host', addresses }, caller);
    const { kind, address } = this.options;
    return { kind, address: address(), proof: proofOf(secret, 'giver', parties) };
  }

  private paired(peer: Omit<Peer, 'since' | 'pins'>, certificate: Certificate): Peer {
    const added = this.options.security.trust.add(peer, certificate);
    const { kind, name } = added;
    this.options.say(`paired with ${kind} ${name} (SHA-256 ${shortForm(certificate.fingerprint)})`);
    return added;
  }

  private checkName(name: string): void {
    if (!HOST_NAME.test(name)) throw new TrustError('BAD_CERTIFICATE', 'its name is no name');
    if (name === this.options.security.name)
      throw new TrustError('NAME_TAKEN', `both hosts are named ${name}: give one another --name`);
  }

  /** Else the new one could never be dialled there. */
  private checkFree(address: string, name: string): void {
    const holder = this.options.security.trust.byAddress(address);
    if (!holder || holder.name === name) return;
    throw new TrustError(
      'NAME_TAKEN',
      `${address} belongs to ${holder.kind} ${holder.name} as far as is known here, not to ` +
        `${name}: nothing was changed; if that one is gone, run mirror forget ${holder.name} first`,
    );
  }
}

/** Before anything is sent: is it the host that gave the token? */
function checkGiver(fingerprint: string, shown: Certificate, address: string): void {
  const name = `the host at ${address} that gave the token`;
  checkPin({ name, pins: [{ sha256: fingerprint, notAfter: '' }] }, shown);
}
