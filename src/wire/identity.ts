/**
 * Who this host (or witness) is to others: a key and a self-signed certificate in
 * `<state-dir>/identity`, made on the first start. During a rotation there is a second one, `next`,
 * which becomes the only one once all peers have pinned it.
 */
import { join } from 'node:path';
import { createPrivateKey } from 'node:crypto';
import { MirrorError } from '../core/errors.js';
import {
  makeCertificate,
  pemOf,
  readCertificate,
  type Certificate,
  type Validity,
} from './certificate.js';
import { movePrivate, readPrivate, writePrivate } from './private-file.js';

const DAY_MS = 86_400_000;
const VALID_DAYS = 365;
/** Clocks differ; a pin does not get safer by a beginning. */
const BACKDATED_DAYS = 1;

export interface Identity {
  readonly keyPem: string;
  readonly certPem: string;
  readonly certificate: Certificate;
}

export function yearFromNow(): Validity {
  const nowMs = Date.now();
  return { fromMs: nowMs - BACKDATED_DAYS * DAY_MS, toMs: nowMs + VALID_DAYS * DAY_MS };
}

export class IdentityStore {
  private readonly dir: string;

  constructor(stateDir: string) {
    this.dir = join(stateDir, 'identity');
  }

  /** Read anew each time: VM processes see a rotation without being told. */
  current(): Identity {
    const identity = this.read('current.pem');
    if (identity) return identity;
    throw new MirrorError('BAD_IDENTITY', `there is no identity in ${this.dir}: start the daemon`);
  }

  next(): Identity | null {
    return this.read('next.pem');
  }

  has(): boolean {
    return readPrivate(this.dir, 'current.pem') !== null;
  }

  make(name: string, validity = yearFromNow()): Identity {
    return this.write('current.pem', name, validity);
  }

  makeNext(name: string, validity = yearFromNow()): Identity {
    return this.write('next.pem', name, validity);
  }

  /** One step on disk: there is no moment without an identity. */
  switchToNext(): void {
    movePrivate(this.dir, 'next.pem', 'current.pem');
  }

  private write(file: string, name: string, validity: Validity): Identity {
    const { keyPem, certificate } = makeCertificate(name, validity);
    const certPem = pemOf(certificate);
    writePrivate(this.dir, file, keyPem + certPem);
    return { keyPem, certPem, certificate };
  }

  private read(file: string): Identity | null {
    const text = readPrivate(this.dir, file);
    if (text === null) return null;
    try {
      const at = text.indexOf('-----BEGIN CERTIFICATE-----');
      const [keyPem, certPem] = [text.slice(0, at), text.slice(at)];
      createPrivateKey(keyPem);
      return { keyPem, certPem, certificate: readCertificate(Buffer.from(certPem)) };
    } catch (cause) {
      throw new MirrorError(
        'BAD_IDENTITY',
        `${join(this.dir, file)} is damaged: nothing was changed; put it back from a backup, or ` +
          'remove it, and pair this host anew with mirror token and mirror join',
        { cause },
      );
    }
  }
}
