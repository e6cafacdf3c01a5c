/**
 * What one daemon may ask another: whether a certain VM process still lives, and which engines and
 * how much memory it has. One line each way.
 */
import { connect, type Socket } from 'node:net';
import { parseAddress } from '../wire/address.js';
import { encodePreamble } from '../wire/preamble.js';
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

/** `null` if no daemon answers. */
export function askPeer(
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
      const preamble = { kind: 'control', vmUuid, vmName, role: 'observer' } as const;
      socket.write(encodePreamble({ versions: [1], ...preamble }));
    });
  });
}

function parsed([word, host = '', ...others]: string[]): PeerAnswer {
  const alive = word === 'alive' ? true : word === 'gone' ? false : 'unknown';
  const told = others.find((other) => other.startsWith(ROOM))?.slice(ROOM.length) ?? '';
  const room = /^\d{1,15}$/.test(told) ? { bytes: Number(told), source: 'as it says' } : null;
  return { alive, host, room, engines: others.filter((other) => !other.startsWith(ROOM)) };
}

/** `unknown` unless that host's daemon itself said yes or no. */
export async function probePeer(
  address: string,
  probe: Probe,
  deadlineMs: number,
): Promise<boolean | 'unknown'> {
  const answer = await askPeer(address, probe, deadlineMs);
  if (!answer || (probe.host !== '' && answer.host !== probe.host)) return 'unknown';
  return answer.alive;
}

export function answerProbe(socket: Socket, answer: PeerAnswer): void {
  const { alive, host, engines, room } = answer;
  const word = alive === 'unknown' ? 'unknown' : alive ? 'alive' : 'gone';
  socket.on('error', () => {});
  const words = [word, host, ...engines, ...(room ? [`${ROOM}${room.bytes}`] : [])];
  socket.end(`${words.join(' ')}\n`);
}
