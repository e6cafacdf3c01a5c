/**
 * What the witness lets a host do that has proven who it is: a change of a record names its
 * proposer as the owner, as every change of the protocol does, and the proposer is a host that the
 * VM's records have named before. Only the first record of a VM has nobody before it.
 *
 * So a host that was never part of a VM cannot take it, and nobody can speak for another. One that
 * once was may, since a person may force it to (`mirror takeover --force`): the witness says so.
 */
import { MirrorError } from '../core/errors.js';
import type { Proposal, VmRecord } from '../core/record.js';

/** Codes: NOT_YOURS. */
export class AuthorityError extends MirrorError {}

/** `named`: all hosts that the VM's records have named so far. Throws to refuse. */
export function checkProposer(
  host: string,
  current: VmRecord | null,
  named: readonly string[],
  proposal: Proposal,
): void {
  const { vm, owner } = proposal;
  const belongsTo = current?.owner ?? 'other hosts';
  if (owner !== host)
    throw new AuthorityError(
      'NOT_YOURS',
      `host ${host} proposes a record of ${vm} that names ${owner} as the owner`,
    );
  if (named.length > 0 && !named.includes(host))
    throw new AuthorityError(
      'NOT_YOURS',
      `host ${host} claims ${vm}, which belongs to ${belongsTo}: the record stands`,
    );
}

/** True if nothing but a person's word explains it. */
export function isForced(host: string, current: VmRecord | null): boolean {
  if (!current || current.mode === 'stopped') return false;
  return current.owner !== host && current.peer !== host;
}
