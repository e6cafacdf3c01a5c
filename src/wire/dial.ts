/** Dials an address as its pairing asks for: preamble, TLS, and the pin checked before any word. */
import { connect, type Socket } from 'node:net';
import { parseAddress } from './address.js';
import { encodePreamble, type Preamble } from './preamble.js';
import { checkPin, type Security } from './security.js';
import { checkNotExpired, startTls, TlsError, type Secured } from './tls.js';
import type { Peer } from './trust-store.js';

/** How long a handshake may take whose other side is a process that has yet to start. */
export const HANDSHAKE_MS_MAX = 5_000;

export interface Call {
  readonly address: string;
  readonly preamble: Preamble;
  /** For the connection, and as long again for the TLS handshake unless told otherwise. */
  readonly deadlineMs: number;
  readonly handshakeMs?: number;
}

export function connectTo(address: string, deadlineMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...parseAddress(address), noDelay: true });
    const settle = (): void => {
      clearTimeout(timer);
      socket.off('error', fail);
    };
    const fail = (error: Error): void => {
      settle();
      socket.on('error', () => {});
      socket.destroy();
      reject(error);
    };
    const timer = setTimeout(
      () => fail(new TlsError('DIAL_TIMEOUT', `${address} did not answer`)),
      deadlineMs,
    );
    socket.once('error', fail);
    socket.once('connect', () => {
      settle();
      socket.on('error', () => {});
      resolve(socket);
    });
  });
}

/** Whoever answers, with the certificate that it shows. */
export async function dialAnybody(
  security: Security,
  { address, preamble, deadlineMs, handshakeMs = deadlineMs }: Call,
): Promise<Secured> {
  const identity = security.identity();
  // They would hang up without a word.
  checkNotExpired(identity.certificate);
  const raw = await connectTo(address, deadlineMs);
  raw.write(encodePreamble({ ...preamble, tls: true }));
  return startTls(raw, 'client', identity, handshakeMs);
}

/** This peer and nobody else. */
export async function dialPinned(
  security: Security,
  peer: Peer,
  call: Call,
): Promise<Secured> {
  const secured = await dialAnybody(security, call);
  try {
    checkPin(peer, secured.certificate);
  } catch (error) {
    secured.socket.destroy();
    throw error;
  }
  return secured;
}
