/**
 * Whom a host answers about the record of a VM where there is no arbiter: the other host of that
 * VM, by its certificate and not by its word.
 */
import type { PairRequest, RecordCopy } from '../core/pair-record.js';
import { HostError } from './host-error.js';

/** Who asks, and what this host knows of the two. */
export interface PairAsker {
  /** The name that it has proven. */
  readonly name: string;
  /** The host that the VM is mirrored to from here: the record may not name it yet, or no more. */
  readonly mirroredTo: string | null;
}

/** Throws to refuse. `mine`: what this host, named `host`, has of it. */
export function checkAsker(
  host: string,
  vmUuid: string,
  mine: RecordCopy | null,
  request: PairRequest,
  { name, mirroredTo }: PairAsker,
): void {
  const { copy, change } = request;
  const refused = (what: string): HostError => new HostError('NOT_YOURS', `host ${name} ${what}`);
  if (request.host !== name) throw refused(`asks for a record as host ${request.host}`);
  const told = [copy?.record, change?.proposal];
  if (told.some((one) => one !== undefined && one.vmUuid !== vmUuid))
    throw refused('asks for the record of one VM with that of another');
  const record = mine?.record ?? copy?.record;
  if (!record || name === mirroredTo) return;
  const { owner, peer, mode, vm } = record;
  const named = owner === name || (mode === 'paired' && peer === name);
  // Nobody owns a VM that is stopped, and what is told to one that has lost it all is its own.
  if (named || (mine ? mode === 'stopped' : owner === host)) return;
  throw refused(`asks for the record of VM ${vm}, which is host ${owner}'s`);
}
