/**
 * Where the records are: a witness of Mirror's own, an etcd cluster, or storage that all hosts
 * share, a folder or a raw device. Every implementation runs `test/pool/arbiter-acceptance.ts`.
 */
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal } from '../core/record.js';
import { isLoopback, parseAddress } from '../wire/address.js';
import type { Security } from '../wire/security.js';
import { DeviceArbiter } from './device-arbiter.js';
import { EtcdArbiter } from './etcd-arbiter.js';
import { FileArbiter } from './file-arbiter.js';
import { WitnessClient } from './witness-client.js';

export interface Arbiter {
  /** Linearizable: never older than what any finished call has returned. */
  read(vmUuid: string): Promise<ArbiterReply>;
  /**
   * Makes `proposal` the record of revision `expectRevision + 1` if the record has revision
   * `expectRevision` (0: there is none) and a lower generation. Whatever got no answer in time is
   * `unknown`.
   */
  cas(vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply>;
  close(): void;
}

export type ArbiterSpec =
  | { readonly kind: 'witness'; readonly address: string }
  | { readonly kind: 'etcd'; readonly endpoints: readonly string[] }
  | { readonly kind: 'file' | 'device'; readonly path: string }
  /** Two hosts alone: their daemons keep the record, see `host/pair-records.ts`. */
  | { readonly kind: 'none' };

const FORMS = 'witness:HOST:PORT, etcd:HOST:PORT[,HOST:PORT...], file:/PATH, device:/PATH or none';

export function parseArbiter(text: string): ArbiterSpec {
  const [kind, rest] = [text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1)];
  if (text === 'none') return { kind: 'none' };
  if (kind === 'witness') {
    parseAddress(rest);
    return { kind, address: rest };
  }
  if (kind === 'etcd') return { kind, endpoints: rest.split(',').map(endpointOf) };
  if ((kind === 'file' || kind === 'device') && rest.startsWith('/')) return { kind, path: rest };
  throw new MirrorError('USAGE', `arbiter ${text}: it is not ${FORMS}`);
}

function endpointOf(text: string): string {
  const url = /^https?:\/\//.test(text) ? text : `http://${text}`;
  const plain = url.replace(/^https?:\/\//, '').replace(/\/$/, '');
  parseAddress(plain);
  return url.replace(/\/$/, '');
}

/** Addresses that cannot but be reached in plain and are not this machine's own. */
export function plainAddresses(spec: ArbiterSpec): string[] {
  const all =
    spec.kind === 'etcd'
      ? spec.endpoints.filter((url) => url.startsWith('http:')).map((url) => url.slice(7))
      : [];
  return all.filter((address) => !isLoopback(parseAddress(address).host));
}

export interface ArbiterOptions {
  readonly deadlineMs: number;
  /** Told what an operator should see to, such as a damaged record. */
  readonly onFault?: (text: string) => void;
  /** How this host connects to a witness; without it, in plain. */
  readonly security?: Security;
}

/** `stateDir`: the host's own. */
export function openArbiter(
  text: string,
  options: ArbiterOptions & { readonly stateDir: string },
): Arbiter {
  const spec = parseArbiter(text);
  switch (spec.kind) {
    case 'witness':
      return new WitnessClient(spec.address, options);
    case 'etcd':
      return new EtcdArbiter(spec.endpoints, options);
    case 'file':
      return new FileArbiter(spec.path, options);
    case 'device':
      return new DeviceArbiter(spec.path, options);
    case 'none':
      throw new MirrorError('USAGE', 'arbiter none: there is nothing to connect to');
  }
}
