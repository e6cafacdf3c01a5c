/**
 * TLS 1.3 over a connection that is there already: both sides show a certificate, and what came
 * with it is told to the caller, who decides by its SHA-256 before a byte is sent or believed.
 */
import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { connect, TLSSocket, type SecureContextOptions } from 'node:tls';
import { MirrorError } from '../core/errors.js';
import { readCertificate, type Certificate } from './certificate.js';
import type { Identity } from './identity.js';

export interface Secured {
  readonly socket: TLSSocket;
  /** Of the other side: it holds the key, and is not expired. Nothing else is known of it. */
  readonly certificate: Certificate;
}

/** Codes: TLS_FAILED, TLS_TIMEOUT, NO_CERTIFICATE, EXPIRED. */
export class TlsError extends MirrorError {}

const OPTIONS = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  // The cheapest where AES is in hardware, and the one that every TLS 1.3 has.
  ciphers: 'TLS_AES_128_GCM_SHA256',
  // A resumed session would show no certificate.
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const satisfies SecureContextOptions;

/** Takes the socket over: on failure it is gone. */
export function startTls(
  raw: Socket,
  side: 'client' | 'server',
  identity: Identity,
  deadlineMs: number,
): Promise<Secured> {
  raw.setNoDelay(true);
  const { keyPem: key, certPem: cert } = identity;
  // Who the peer is, the caller checks: no authority vouches for anybody here.
  const common = { ...OPTIONS, key, cert, rejectUnauthorized: false };
  const socket =
    side === 'client'
      ? connect({ ...common, socket: raw })
      : new TLSSocket(raw, { ...common, isServer: true, requestCert: true });
  return shaken(raw, socket, side, deadlineMs);
}

function shaken(
  raw: Socket,
  socket: TLSSocket,
  side: 'client' | 'server',
  deadlineMs: number,
): Promise<Secured> {
  return new Promise((resolve, reject) => {
    const event = side === 'client' ? 'secureConnect' : 'secure';
    const settle = (): void => {
      clearTimeout(timer);
      socket.off(event, done);
      socket.off('close', closed);
    };
    const fail = (error: MirrorError): void => {
      settle();
      socket.destroy();
      raw.destroy();
      reject(error);
    };
    const closed = (): void => fail(new TlsError('TLS_FAILED', 'hung up in the TLS handshake'));
    const done = (): void => {
      try {
        const certificate = shown(socket);
        settle();
        resolve({ socket, certificate });
      } catch (error) {
        fail(error instanceof MirrorError ? error : new TlsError('TLS_FAILED', String(error)));
      }
    };
    const timer = setTimeout(
      () => fail(new TlsError('TLS_TIMEOUT', 'the TLS handshake was not done in time')),
      deadlineMs,
    );
    // Both stay: an error that comes later is followed by `close`.
    socket.on('error', (cause: Error) => {
      fail(new TlsError('TLS_FAILED', `TLS failed: ${cause.message}`, { cause }));
    });
    raw.on('error', () => {});
    socket.once(event, done);
    socket.once('close', closed);
  });
}

function shown(socket: TLSSocket): Certificate {
  const x509 = socket.getPeerX509Certificate();
  if (!x509) throw new TlsError('NO_CERTIFICATE', 'the other side shows no certificate');
  const certificate = readCertificate(x509.raw);
  checkNotExpired(certificate);
  return certificate;
}

export function checkNotExpired({ name, notAfterMs }: Certificate): void {
  if (Date.now() <= notAfterMs) return;
  const day = new Date(notAfterMs).toISOString().slice(0, 10);
  throw new TlsError(
    'EXPIRED',
    `the certificate of ${name} has expired on ${day}: run mirror rotate --force there, ` +
      'and pair it anew with mirror token and mirror join',
  );
}
