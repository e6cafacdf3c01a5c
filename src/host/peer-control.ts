/**
 * What one daemon may ask another: whether a certain VM process still lives, and which engines and
 * how much memory it has. With TLS the question and the answer are both inside it; in plain, the
 * preamble asks and one line of words answers.
 */
import { connect, type Socket } from 'node:net';
import { parseAddress } from '../wire/address.js';
import { dialPinned } from '../wire/dial.js';
import { askLine } from '../wire/line-exchange.js';
import { encodePreamble, preambleOf } from '../wire/preamble.js';
import type { Security } from '../wire/security.js';
import type { Peer } from '../wire/trust-store.js';
import type { MemoryRoom } from './memory-room.js';

const ANSWER_BYTES_MAX = 256;

export interface Probe {
  readonly vmUuid: string;
  /** Empty: any process that holds an image of the VM. */
  readonly incarnation: string;
  /** The host that is meant: another one at the same address knows nothing. Empty: any. */
  readonly host: string;
}

export interface PeerAnswer {
  readonly alive: boolean | 'unknown';
  readonly host: string;
  /** Those that can run a VM there. */
  readonly engines: readonly string[];
  /** Memory for a further VM there; `null`: it does not say. */
  readonly room: MemoryRoom | null;
}

const ROOM = 'room=';

/** `null` if no daemon answers, or none that may be asked. */
export async function askPeer(
  security: Security,
  address: string,
  probe: Probe,
  deadlineMs: number,
): Promise<PeerAnswer | null> {
  try {
    const route = address === '' ? null : routeTo(security, address, probe.host);
    if (route === null) return null;
    if (route === 'plain') return await askPlainly(address, probe, deadlineMs);
    return await askSecurely(security, route, address, probe, deadlineMs);
  } catch {
    return null;
  }
}

/** The daemon of this host is asked under this host's own certificate. */
function routeTo(security: Security, address: string, host: string): Peer | 'plain' {
  return host === security.name ? security.routeToSelf(address) : security.routeTo(address);
}

async function askSecurely(
  security: Security,
  peer: Peer,
  address: string,
  probe: Probe,
  deadlineMs: number,
): Promise<PeerAnswer> {
  const call = { address, preamble: preambleOf('control'), deadlineMs };
  const { socket } = await dialPinned(security, peer, call);
  const { vmUuid, incarnation } = probe;
  const answer = await askLine(socket, { op: 'probe', vmUuid, incarnation }, deadlineMs);
  const { alive, engines, roomBytes } = answer;
  return {
    alive: typeof alive === 'boolean' ? alive : 'unknown',
    host: peer.name,
    engines: Array.isArray(engines) ? engines.map(String) : [],
    room: typeof roomBytes === 'number' ? roomTold(String(roomBytes)) : null,
  };
}

function askPlainly(
  address: string,
  probe: Probe,
  deadlineMs: number,
): Promise<PeerAnswer | null> {
  return new Promise((resolve) => {
    const socket = connect(parseAddress(address));
    let text = '';
    const finish = (answer: PeerAnswer | null): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish(null), deadlineMs);
    socket.on('error', () => finish(null));
    socket.on('close', () => finish(null));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.length > ANSWER_BYTES_MAX) finish(null);
      if (!text.includes('\n')) return;
      finish(parsed(text.trim().split(' ')));
    });
    socket.on('connect', () => {
      const { vmUuid, incarnation: vmName } = probe;
      socket.write(encodePreamble({ ...preambleOf('control'), vmUuid, vmName }));
    });
  });
}

function parsed([word, host = '', ...others]: string[]): PeerAnswer {
  const alive = word === 'alive' ? true : word === 'gone' ? false : 'unknown';
  const told = others.find((other) => other.startsWith(ROOM))?.slice(ROOM.length) ?? '';
  const engines = others.filter((other) => !other.startsWith(ROOM));
  return { alive, host, engines, room: roomTold(told) };
}

function roomTold(bytes: string): MemoryRoom | null {
  return /^\d{1,15}$/.test(bytes) ? { bytes: Number(bytes), source: 'as it says' } : null;
}

/** `unknown` unless that host's daemon itself said yes or no. */
export async function probePeer(
  security: Security,
  address: string,
  probe: Probe,
  deadlineMs: number,
): Promise<boolean | 'unknown'> {
  const answer = await askPeer(security, address, probe, deadlineMs);
  if (!answer || (probe.host !== '' && answer.host !== probe.host)) return 'unknown';
  return answer.alive;
}

/** The same as the line of an answer inside TLS. */
export function lineOf({ alive, host, engines, room }: PeerAnswer): object {
  return { alive, host, engines, roomBytes: room?.bytes ?? null };
}

export function answerPlainly(socket: Socket, answer: PeerAnswer): void {
  const { alive, host, engines, room } = answer;
  const word = alive === 'unknown' ? 'unknown' : alive ? 'alive' : 'gone';
  socket.on('error', () => {});
  const words = [word, host, ...engines, ...(room ? [`${ROOM}${room.bytes}`] : [])];
  socket.end(`${words.join(' ')}\n`);
}
