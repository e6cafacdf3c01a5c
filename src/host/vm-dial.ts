/**
 * How the connection of a VM is made between two hosts. With TLS the caller first asks the other
 * daemon, which knows it by its certificate and looks into the record; a permission comes back, and
 * only a connection that bears it gets a process there.
 */
import type { Socket } from 'node:net';
import { connectTo, dialPinned, HANDSHAKE_MS_MAX } from '../wire/dial.js';
import { askLine } from '../wire/line-exchange.js';
import { encodePreamble, preambleOf } from '../wire/preamble.js';
import { checkPin, type Security } from '../wire/security.js';
import { startTls } from '../wire/tls.js';
import type { Peer } from '../wire/trust-store.js';
import { VmProcessError } from './vm-process-error.js';

/** What the owner says of itself; the other daemon holds it against the record. */
export interface OwnerClaim {
  readonly vmName: string;
  readonly vmUuid: string;
  readonly incarnation: string;
  readonly generation: number;
}

export interface VmConnection {
  readonly socket: Socket;
  /** The host that has proven to be there; `null`: the connection is plain. */
  readonly peer: string | null;
}

/** Whom the daemon let in, by its certificate; `null`: it asked for none. */
export type ProvenPeer = Pick<Peer, 'name' | 'pins'> | null;

export async function dialVm(
  security: Security,
  address: string,
  claim: OwnerClaim,
  deadlineMs: number,
): Promise<VmConnection> {
  const { vmUuid, vmName } = claim;
  const preamble = { versions: [1], kind: 'vm', vmUuid, vmName, role: 'owner' } as const;
  const route = security.routeTo(address);
  if (route === 'plain') {
    const socket = await connectTo(address, deadlineMs);
    socket.write(encodePreamble(preamble));
    return { socket, peer: null };
  }
  const ticket = await askToStandBy(security, address, route, claim, deadlineMs);
  const asked = { address, preamble: { ...preamble, ticket }, deadlineMs };
  const call = { ...asked, handshakeMs: HANDSHAKE_MS_MAX };
  const { socket } = await dialPinned(security, route, call);
  return { socket, peer: route.name };
}

/** The standby's side of it, in the VM's process. */
export async function acceptVm(
  security: Security,
  raw: Socket,
  peer: ProvenPeer,
): Promise<VmConnection> {
  if (peer === null) return { socket: raw, peer: null };
  const identity = security.identity();
  const { socket, certificate } = await startTls(raw, 'server', identity, HANDSHAKE_MS_MAX);
  try {
    checkPin(peer, certificate);
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return { socket, peer: peer.name };
}

async function askToStandBy(
  security: Security,
  address: string,
  peer: Peer,
  claim: OwnerClaim,
  deadlineMs: number,
): Promise<string> {
  const call = { address, preamble: preambleOf('control'), deadlineMs };
  const { socket } = await dialPinned(security, peer, call);
  const request = { op: 'stand-by', ...claim };
  const { ticket } = await askLine(socket, request, HANDSHAKE_MS_MAX);
  if (typeof ticket === 'string') return ticket;
  throw new VmProcessError('DIAL_FAILED', `${address} gave no permission, and no reason`);
}
