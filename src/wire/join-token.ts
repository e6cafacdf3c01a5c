/**
 * A pairing token: where a host is, the SHA-256 of its certificate, and a secret that it will take
 * once, for a while. The secret itself never travels: each side proves that it has it, bound to the
 * two certificates of the connection, so that nobody in between can use the proof for another.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { MirrorError } from '../core/errors.js';

const PREFIX = 'mirror1.';
const SECRET_BYTES = 32;
const TOKENS_MAX = 64;
const TOKEN_CHARS_MAX = 1_024;

export interface JoinToken {
  readonly address: string;
  readonly fingerprint: string;
  readonly secret: Buffer;
  readonly expiresAtMs: number;
}

/** Codes: BAD_TOKEN, TOKEN_EXPIRED, TOKEN_USED. */
export class TokenError extends MirrorError {}

export function encodeToken(token: JoinToken): string {
  const { address, fingerprint, secret, expiresAtMs } = token;
  const body = { a: address, f: fingerprint, s: secret.toString('base64url'), e: expiresAtMs };
  return PREFIX + Buffer.from(JSON.stringify(body)).toString('base64url');
}

/** Throws on what is no token. Whether it still counts only its giver can say, by its own clock. */
export function decodeToken(text: string): JoinToken {
  const bad = (): TokenError =>
    new TokenError('BAD_TOKEN', 'that is not a token: copy the line that mirror token printed');
  if (!text.startsWith(PREFIX) || text.length > TOKEN_CHARS_MAX) throw bad();
  let body: Partial<Record<'a' | 'f' | 's' | 'e', unknown>>;
  try {
    const json = Buffer.from(text.slice(PREFIX.length), 'base64url').toString();
    body = JSON.parse(json) as object;
  } catch {
    throw bad();
  }
  const { a: address, f: fingerprint, s, e: expiresAtMs } = body;
  if (typeof address !== 'string' || typeof fingerprint !== 'string') throw bad();
  if (typeof s !== 'string' || typeof expiresAtMs !== 'number') throw bad();
  const secret = Buffer.from(s, 'base64url');
  if (!/^[0-9a-f]{64}$/.test(fingerprint) || secret.length !== SECRET_BYTES) throw bad();
  return { address, fingerprint, secret, expiresAtMs };
}

export interface Handshake {
  /** SHA-256 of the certificate of the host that gave the token. */
  readonly giver: string;
  readonly joiner: string;
}

/** `who` proves to the other that it has the secret. */
export function proofOf(
  secret: Buffer,
  who: 'joiner' | 'giver',
  { giver, joiner }: Handshake,
): string {
  return createHmac('sha256', secret).update(`mirror join ${who} ${giver} ${joiner}`).digest('hex');
}

export function sameProof(one: string, other: string): boolean {
  const [left, right] = [Buffer.from(one), Buffer.from(other)];
  return left.length === right.length && timingSafeEqual(left, right);
}

interface Given {
  readonly token: JoinToken;
  used: boolean;
}

const isLive = ({ token, used }: Given): boolean => !used && token.expiresAtMs > Date.now();

/** The tokens that this host gave out. They live as long as the daemon does. */
export class TokenDesk {
  /** The dead are kept for as long as there is room, so that a replay can be told as one. */
  private tokens: Given[] = [];

  give(address: string, fingerprint: string, forMs: number): JoinToken {
    if (this.tokens.length >= TOKENS_MAX) this.tokens = this.tokens.filter(isLive);
    if (this.tokens.length >= TOKENS_MAX)
      throw new TokenError('BUSY', `${TOKENS_MAX} tokens are out already: wait for one to expire`);
    const secret = randomBytes(SECRET_BYTES);
    const token = { address, fingerprint, secret, expiresAtMs: Date.now() + forMs };
    this.tokens.push({ token, used: false });
    return token;
  }

  /** The token that this proof was made with; it is used up, whatever comes of it. */
  take(proof: string, parties: Handshake): JoinToken {
    const kept = this.tokens.find(({ token }) =>
      sameProof(proofOf(token.secret, 'joiner', parties), proof),
    );
    if (!kept) throw new TokenError('BAD_TOKEN', 'this host gave no such token: ask for a new one');
    if (kept.used)
      throw new TokenError('TOKEN_USED', 'the token was used before: ask for a new one');
    if (!isLive(kept))
      throw new TokenError('TOKEN_EXPIRED', 'the token has expired: ask for a new one');
    kept.used = true;
    return kept.token;
  }
}
