/**
 * What one daemon may ask another: whether a certain VM process still lives, and which engines it
 * has. One line each way.
 */
import { connect, type Socket } from 'node:net';
import { parseAddress } from '../wire/address.js';
import { encodePreamble } from '../wire/preamble.js';

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
}

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
      const [word, host = '', ...engines] = text.trim().split(' ');
      const alive = word === 'alive' ? true : word === 'gone' ? false : 'unknown';
      finish({ alive, host, engines });
    });
    socket.on('connect', () => {
      const { vmUuid, incarnation: vmName } = probe;
      const preamble = { kind: 'control', vmUuid, vmName, role: 'observer' } as const;
      socket.write(encodePreamble({ versions: [1], ...preamble }));
    });
  });
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

export function answerProbe(socket: Socket, { alive, host, engines }: PeerAnswer): void {
  const word = alive === 'unknown' ? 'unknown' : alive ? 'alive' : 'gone';
  socket.on('error', () => {});
  socket.end(`${[word, host, ...engines].join(' ')}\n`);
}
