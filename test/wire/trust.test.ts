/** The folder of an identity and of the known peers, and tokens. */
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { makeCertificate, type Certificate } from '../../src/wire/certificate.js';
import { decodeToken, encodeToken, proofOf, TokenDesk } from '../../src/wire/join-token.js';
import { Security } from '../../src/wire/security.js';
import { TrustStore } from '../../src/wire/trust-store.js';

const trust = suite('trust');
const validity = { fromMs: 0, toMs: Date.now() + 1e9 };

function given(name: string, play: (dir: string) => void): void {
  trust(name, () => {
    const dir = mkdtempSync(join(tmpdir(), 'mirror-trust-'));
    try {
      play(dir);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
}

const made = (name: string): Certificate => makeCertificate(name, validity).certificate;

function codeOf(work: () => unknown): string {
  try {
    work();
    return '';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

given('an identity is made once, for its owner only, and stays', (dir) => {
  const host = (name: string): Security => new Security({ stateDir: dir, name, insecure: false });
  host('a').prepare();
  const { fingerprint } = host('a').identity().certificate;
  const folder = join(dir, 'identity');
  assert.is(statSync(folder).mode & 0o777, 0o700);
  for (const file of readdirSync(folder))
    assert.is(statSync(join(folder, file)).mode & 0o777, 0o600, file);
  host('a').prepare();
  assert.is(host('a').identity().certificate.fingerprint, fingerprint);
  // Nobody knows it yet: it may still be named anew.
  host('b').prepare();
  assert.is(host('b').identity().certificate.name, 'b');
  host('b').trust.add({ name: 'c', kind: 'host', addresses: [] }, made('c'));
  assert.is(codeOf(() => host('a').prepare()), 'BAD_IDENTITY');
  writeFileSync(join(folder, 'current.pem'), 'torn');
  assert.is(codeOf(() => host('b').prepare()), 'BAD_IDENTITY');
});

given('a peer keeps its name, its key and its address against all others', (dir) => {
  const store = new TrustStore(dir);
  const [one, two] = [made('b'), made('c')];
  store.add({ name: 'b', kind: 'host', addresses: ['10.0.0.2:7701'] }, one);
  assert.is(statSync(join(dir, 'peers.json')).mode & 0o777, 0o600);
  assert.is(codeOf(() => store.add({ name: 'b', kind: 'host', addresses: [] }, two)), 'NAME_TAKEN');
  assert.is(codeOf(() => store.add({ name: 'c', kind: 'host', addresses: [] }, one)), 'NAME_TAKEN');
  store.add({ name: 'c', kind: 'host', addresses: ['10.0.0.2:7701', '10.0.0.3:7701'] }, two);
  assert.is(store.byAddress('10.0.0.2:7701')?.name, 'b');
  store.learn('c', { address: '10.0.0.2:7701', next: null });
  assert.equal(store.byName('c')?.addresses, ['10.0.0.3:7701']);
  store.learn('c', { address: '10.0.0.4:7701', next: null });
  assert.equal(store.byName('c')?.addresses, ['10.0.0.4:7701', '10.0.0.3:7701']);
  assert.is(codeOf(() => store.learn('c', { address: '', next: one })), 'NAME_TAKEN');
  store.forget('b');
  assert.is(store.byFingerprint(one.fingerprint), null);
  assert.is(codeOf(() => store.forget('b')), 'NO_SUCH_HOST');
});

given('two keys count while one follows the other, and one after', (dir) => {
  const store = new TrustStore(dir);
  const [first, second, third] = [made('b'), made('b'), made('b')];
  const counts = (one: Certificate): boolean => store.byFingerprint(one.fingerprint) !== null;
  store.add({ name: 'b', kind: 'host', addresses: [] }, first);
  store.learn('b', { address: '', next: second });
  store.settle('b', first.fingerprint);
  assert.ok(counts(first) && counts(second), 'the old one is still in use');
  store.learn('b', { address: '', next: third });
  assert.ok(counts(first) && !counts(second) && counts(third), 'it thought again');
  store.settle('b', third.fingerprint);
  assert.ok(!counts(first) && counts(third));
});

given('a damaged list of peers trusts nobody, and is not taken for none', (dir) => {
  const security = new Security({ stateDir: dir, name: 'a', insecure: false });
  security.prepare();
  assert.is(security.routeTo('127.0.0.1:7701'), 'plain');
  assert.is(codeOf(() => security.routeTo('10.0.0.1:7701')), 'NOT_PAIRED');
  writeFileSync(join(dir, 'peers.json'), '{"peers":[{"name":"b"}');
  assert.is(codeOf(() => security.routeTo('127.0.0.1:7701')), 'BAD_STATE');
  assert.is(codeOf(() => security.recognise(made('b'))), 'BAD_STATE');
});

trust('a token counts once, for a while, between two certificates', () => {
  const desk = new TokenDesk();
  const parties = { giver: 'a'.repeat(64), joiner: 'b'.repeat(64) };
  const take = (proof: string, who = parties): string => codeOf(() => desk.take(proof, who));
  const token = decodeToken(encodeToken(desk.give('h:1', parties.giver, 60_000)));
  assert.is(token.address, 'h:1');
  const proof = proofOf(token.secret, 'joiner', parties);
  assert.is(take(proof, { ...parties, joiner: 'c'.repeat(64) }), 'BAD_TOKEN', 'a stolen proof');
  assert.is(take(proofOf(token.secret, 'giver', parties)), 'BAD_TOKEN', 'our own answer');
  assert.is(take(proof), '');
  assert.is(take(proof), 'TOKEN_USED');
  const late = desk.give('h:1', parties.giver, -1);
  assert.is(take(proofOf(late.secret, 'joiner', parties)), 'TOKEN_EXPIRED');
});

trust('tokens are bounded, and garbage is none', () => {
  const desk = new TokenDesk();
  const fill = (): unknown => {
    for (let i = 0; i < 1_000; i++) desk.give('h:1', 'a'.repeat(64), 60_000);
    return null;
  };
  assert.is(codeOf(fill), 'BUSY');
  const short = encodeToken({
    ...{ address: 'h:1', fingerprint: 'a'.repeat(64), expiresAtMs: 1 },
    secret: Buffer.alloc(4),
  });
  for (const text of ['', 'T', 'mirror1.', 'mirror1.e30', `mirror1.${'A'.repeat(9_999)}`, short])
    assert.is(codeOf(() => decodeToken(text)), 'BAD_TOKEN', text.slice(0, 40));
});

trust.run();
