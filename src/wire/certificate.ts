/**
 * Self-signed certificates: just enough DER to make one (X.509 v3, EC P-256), and what is looked at
 * in one that a peer shows. Nothing in a certificate is believed but what its SHA-256 was pinned
 * for.
 */
import {
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
  createHash,
  type KeyObject,
} from 'node:crypto';
import { MirrorError } from '../core/errors.js';

const TAG = {
  ...{ boolean: 0x01, integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, utf8: 0x0c },
  ...{ utcTime: 0x17, generalTime: 0x18, sequence: 0x30, set: 0x31 },
  ...{ version: 0xa0, extensions: 0xa3, dnsName: 0x82 },
} as const;
const ECDSA_SHA256 = tlv(TAG.oid, Buffer.from('2a8648ce3d040302', 'hex'));
const COMMON_NAME = tlv(TAG.oid, Buffer.from('550403', 'hex'));
const ALT_NAME = tlv(TAG.oid, Buffer.from('551d11', 'hex'));
const BASIC_CONSTRAINTS = tlv(TAG.oid, Buffer.from('551d13', 'hex'));
const SERIAL_BYTES = 16;
/** More is no certificate of ours. */
const DER_BYTES_MAX = 4 << 10;

export interface Validity {
  readonly fromMs: number;
  readonly toMs: number;
}

/** A certificate as a peer shows it. */
export interface Certificate {
  /** Whom it claims to be of. */
  readonly name: string;
  /** SHA-256 of the DER, in hex: what peers pin. */
  readonly fingerprint: string;
  readonly notAfterMs: number;
  readonly der: Buffer;
}

export interface NewCertificate {
  readonly keyPem: string;
  readonly certificate: Certificate;
}

export function makeCertificate(name: string, validity: Validity): NewCertificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const body = toBeSigned(name, publicKey, validity);
  const signature = sign('sha256', body, privateKey);
  const der = sequence(
    body,
    sequence(ECDSA_SHA256),
    tlv(TAG.bits, Buffer.concat([Buffer.of(0), signature])),
  );
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return { keyPem, certificate: readCertificate(der) };
}

/** Throws on what is no certificate; says nothing of whether it is trusted. */
export function readCertificate(bytes: Buffer): Certificate {
  try {
    if (bytes.length > DER_BYTES_MAX) throw new Error('too long');
    const parsed = new X509Certificate(bytes);
    const der = parsed.raw;
    const name = /^CN=(.*)$/m.exec(parsed.subject)?.[1] ?? '';
    const notAfterMs = Date.parse(parsed.validTo);
    if (Number.isNaN(notAfterMs)) throw new Error('without an end');
    return { name, fingerprint: fingerprintOf(der), notAfterMs, der };
  } catch (cause) {
    throw new MirrorError('BAD_CERTIFICATE', 'what came is not a certificate', { cause });
  }
}

/** True if whoever made it had the key that is in it. */
export function isSelfSigned({ der }: Certificate): boolean {
  const parsed = new X509Certificate(der);
  return parsed.verify(parsed.publicKey);
}

export const fingerprintOf = (der: Uint8Array): string =>
  createHash('sha256').update(der).digest('hex');

export const pemOf = ({ der }: Certificate): string => {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
};

function toBeSigned(name: string, publicKey: KeyObject, { fromMs, toMs }: Validity): Buffer {
  const serial = randomBytes(SERIAL_BYTES);
  // Positive, and of full length.
  serial[0] = (serial[0] & 0x7f) | 0x40;
  const subject = sequence(
    tlv(TAG.set, sequence(COMMON_NAME, tlv(TAG.utf8, Buffer.from(name, 'utf8')))),
  );
  const altName = sequence(tlv(TAG.dnsName, Buffer.from(name, 'latin1')));
  const extensions = sequence(
    sequence(ALT_NAME, tlv(TAG.octets, altName)),
    sequence(BASIC_CONSTRAINTS, tlv(TAG.boolean, Buffer.of(0xff)), tlv(TAG.octets, sequence())),
  );
  return sequence(
    tlv(TAG.version, tlv(TAG.integer, Buffer.of(2))),
    tlv(TAG.integer, serial),
    sequence(ECDSA_SHA256),
    subject,
    sequence(time(fromMs), time(toMs)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    tlv(TAG.extensions, extensions),
  );
}

/** RFC 5280: two digits of the year up to 2049, four from then on. */
function time(atMs: number): Buffer {
  const text = `${new Date(atMs).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;
  return Number(text.slice(0, 4)) < 2050
    ? tlv(TAG.utcTime, Buffer.from(text.slice(2)))
    : tlv(TAG.generalTime, Buffer.from(text));
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return tlv(TAG.sequence, Buffer.concat(parts));
}

function tlv(tag: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.of(tag), lengthOf(content.length), content]);
}

function lengthOf(count: number): Buffer {
  if (count < 0x80) return Buffer.of(count);
  if (count < 0x100) return Buffer.of(0x81, count);
  return Buffer.of(0x82, count >> 8, count & 0xff);
}
