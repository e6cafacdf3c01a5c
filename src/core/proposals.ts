/**
 * The changes of the record that a host may propose, by name. Each raises the generation by one.
 */
import type { CoreConfig } from './events.js';
import type { Proposal, VmRecord } from './record.js';

const NOBODY = { peer: '', peerIncarnation: '', baseEpoch: 0 } as const;

export function createProposal(config: CoreConfig, stopped: VmRecord | null): Proposal {
  return {
    vm: config.vm,
    vmUuid: config.vmUuid,
    generation: (stopped?.generation ?? 0) + 1,
    mode: 'solo',
    owner: config.host,
    ownerIncarnation: config.incarnation,
    ...NOBODY,
    diskLegs: stopped?.diskLegs ?? {},
    ...(stopped?.forcedAt === undefined ? {} : { forcedAt: stopped.forcedAt }),
  };
}

/** Going on alone, taking over, booting cold: all make this process the only owner. */
export function soloProposal(config: CoreConfig, record: VmRecord): Proposal {
  return {
    ...withoutRevision(record),
    generation: record.generation + 1,
    mode: 'solo',
    owner: config.host,
    ownerIncarnation: config.incarnation,
    ...NOBODY,
  };
}

export function pairProposal(
  record: VmRecord,
  peer: { host: string; incarnation: string },
  baseEpoch: number,
): Proposal {
  return {
    ...withoutRevision(record),
    generation: record.generation + 1,
    mode: 'paired',
    peer: peer.host,
    peerIncarnation: peer.incarnation,
    baseEpoch,
  };
}

export function stopProposal(record: VmRecord): Proposal {
  return {
    ...withoutRevision(record),
    generation: record.generation + 1,
    mode: 'stopped',
    ...NOBODY,
  };
}

/** A person vouches for `record`: it outranks all that this host has ever seen. */
export function vouchedProposal(proposal: Proposal, generationSeen: number): Proposal {
  return { ...proposal, generation: Math.max(proposal.generation, generationSeen + 1) };
}

/** The same where no arbiter keeps the record: marked, so that it stays when the hosts meet. */
export function forcedProposal(
  config: CoreConfig,
  record: VmRecord,
  generationSeen: number,
): Proposal {
  const proposal = vouchedProposal(soloProposal(config, record), generationSeen);
  return { ...proposal, forcedAt: proposal.generation };
}

function withoutRevision(record: VmRecord): Proposal {
  const { revision: _, ...rest } = record;
  return rest;
}
