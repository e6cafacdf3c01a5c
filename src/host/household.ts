/**
 * What a host does for those who come through its door: probes, permissions, standbys, and where
 * there is no arbiter the records.
 */
import type { Socket } from 'node:net';
import { whatQemuNeeds } from '../machine/qemu/qemu-host.js';
import { wordOf, type Line } from '../wire/line-exchange.js';
import type { House } from '../wire/secure-door.js';
import type { Peer } from '../wire/trust-store.js';
import type { Admission } from './admission.js';
import { HostError } from './host-error.js';
import type { MemoryRoom } from './memory-room.js';
import { answerPlainly, lineOf, type PeerAnswer } from './peer-control.js';
import type { PairDaemon } from './pair-daemon.js';
import type { VmChild } from './vm-child.js';

/** What this needs of the daemon. */
export interface Household {
  readonly host: string;
  readonly admission: Admission;
  /** `null`: there is an arbiter. */
  readonly pair: PairDaemon | null;
  /** What failed once it was let in. */
  refused(socket: Socket, error: unknown): void;
  isAlive(vmUuid: string, incarnation: string): boolean | 'unknown';
  /** Memory for a further VM. */
  roomForMore(): MemoryRoom | null;
  /** Throws if no standby could be made. */
  checkStandby(vmName: string, vmUuid: string): void;
  standbyFor(vmName: string, vmUuid: string): VmChild;
}

export function houseOf(household: Household): House {
  const { admission } = household;
  return {
    plain: (socket, { kind, role, vmUuid, vmName, rest }) => {
      if (kind === 'control' && role === 'owner') tellRecord(household, socket, vmUuid);
      else if (kind === 'control') answerPlainly(socket, answer(household, vmUuid, vmName));
      else household.standbyFor(vmName, vmUuid).handOver(socket, rest, null);
    },
    vm: (socket, { ticket, rest }) => {
      const { vmName, vmUuid, peer } = admission.take(ticket);
      household.standbyFor(vmName, vmUuid).handOver(socket, rest, peer);
    },
    known: () => {
      throw new HostError('BAD_REQUEST', 'this is a host: it is no witness');
    },
    ask: (peer, request) => ask(household, peer, request),
  };
}

async function ask(household: Household, peer: Peer, request: Line): Promise<object> {
  switch (request['op']) {
    case 'probe':
      return lineOf(answer(household, wordOf(request, 'vmUuid'), wordOf(request, 'incarnation')));
    case 'pair':
      return pairOf(household).answer(peer, request);
    case 'stand-by':
      return { ticket: await permit(household, peer, request) };
    default:
      throw new HostError('BAD_REQUEST', 'a request that is not known here');
  }
}

function tellRecord(household: Household, socket: Socket, vmUuid: string): void {
  pairOf(household)
    .answerPlainly(socket, vmUuid)
    .catch((error: unknown) => {
      household.refused(socket, error);
      socket.destroy();
    });
}

function pairOf({ pair }: Household): PairDaemon {
  if (pair) return pair;
  throw new HostError('REFUSED', 'this host has an arbiter: it keeps no records');
}

/** Whoever will be refused hears why now, and not by being hung up on. */
async function permit(household: Household, peer: Peer, request: Line): Promise<string> {
  const ticket = await household.admission.admit(peer, request);
  household.checkStandby(String(request['vmName']), String(request['vmUuid']));
  return ticket;
}

/** A probe without a VM asks for the engines, and for the memory that a further one would have. */
function answer(household: Household, vmUuid: string, incarnation: string): PeerAnswer {
  const { host } = household;
  const engines = whatQemuNeeds() === '' ? ['v86', 'qemu'] : ['v86'];
  const room = vmUuid === '' ? household.roomForMore() : null;
  return { alive: household.isAlive(vmUuid, incarnation), host, engines, room };
}
