/** Certificates made by hand: valid to others' eyes, and read without trust. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MirrorError } from '../../src/core/errors.js';
import {
  isSelfSigned,
  makeCertificate,
  pemOf,
  readCertificate,
} from '../../src/wire/certificate.js';

const certificate = suite('certificate');
const at = (text: string): number => Date.parse(text);

certificate('what is made is what was asked for, to other software too', () => {
  for (const [name, from, to] of [
    ['a', '2026-01-01T00:00:00Z', '2027-01-01T00:00:00Z'],
    ['x'.repeat(63), '2049-12-31T23:59:59Z', '2050-01-01T00:00:00Z'],
  ]) {
    const { keyPem, certificate: made } = makeCertificate(name, {
      ...{ fromMs: at(from), toMs: at(to) },
    });
    const parsed = new X509Certificate(pemOf(made));
    assert.is(parsed.subject, `CN=${name}`);
    assert.is(parsed.subjectAltName, `DNS:${name}`);
    assert.is(parsed.ca, false);
    assert.is(at(parsed.validFrom), at(from));
    assert.is(at(parsed.validTo), at(to));
    assert.ok(parsed.checkPrivateKey(createPrivateKey(keyPem)));
    assert.ok(parsed.verify(parsed.publicKey));
    assert.is(parsed.fingerprint256.replaceAll(':', '').toLowerCase(), made.fingerprint);
    assert.is(made.name, name);
    assert.is(made.notAfterMs, at(to));
  }
});

certificate('no two are the same, and one signed by another key is told', () => {
  const validity = { fromMs: 0, toMs: at('2040-01-01T00:00:00Z') };
  const [one, other] = [makeCertificate('a', validity), makeCertificate('a', validity)];
  assert.is.not(one.certificate.fingerprint, other.certificate.fingerprint);
  assert.ok(isSelfSigned(one.certificate));
  const forged = Buffer.from(one.certificate.der);
  forged[forged.length - 1] ^= 1;
  assert.not.ok(isSelfSigned(readCertificate(forged)));
});

certificate('garbage and mutations give an error or a certificate, never more', () => {
  const { der } = makeCertificate('a', { fromMs: 0, toMs: 1e12 }).certificate;
  const edits = fc.array(fc.tuple(fc.nat(der.length - 1), fc.nat(255)), { maxLength: 4 });
  fc.assert(
    fc.property(edits, (list) => {
      const bytes = Buffer.from(der);
      for (const [place, value] of list) bytes[place] = value;
      try {
        const read = readCertificate(bytes);
        const same = bytes.equals(der);
        assert.is(read.fingerprint === readCertificate(der).fingerprint, same);
      } catch (error) {
        assert.instance(error, MirrorError);
      }
    }),
    { numRuns: 1_000 },
  );
  assert.throws(() => readCertificate(Buffer.alloc(100 << 10)), /not a certificate/);
});

certificate.run();
