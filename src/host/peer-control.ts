/** What one daemon may ask another: whether a certain VM process still lives. One line each way. */
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

/** `unknown` unless that host's daemon itself said yes or no. */
export function probePeer(
  address: string,
  probe: Probe,
  deadlineMs: number,
): Promise<boolean | 'unknown'> {
  return new Promise((resolve) => {
    const socket = connect(parseAddress(address));
    let answer = '';
    const finish = (alive: boolean | 'unknown'): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(alive);
    };
    const timer = setTimeout(() => finish('unknown'), deadlineMs);
    socket.on('error', () => finish('unknown'));
    socket.on('close', () => finish('unknown'));
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
      if (answer.length > ANSWER_BYTES_MAX) finish('unknown');
      if (!answer.includes('\n')) return;
      const [word, host] = answer.trim().split(' ');
      if (probe.host !== '' && host !== probe.host) finish('unknown');
      else finish(word === 'alive' ? true : word === 'gone' ? false : 'unknown');
    });
    socket.on('connect', () => {
      const { vmUuid, incarnation: vmName } = probe;
      const preamble = { kind: 'control', vmUuid, vmName, role: 'observer' } as const;
      socket.write(encodePreamble({ versions: [1], ...preamble }));
    });
  });
}

export function answerProbe(socket: Socket, host: string, alive: boolean | 'unknown'): void {
  const word = alive === 'unknown' ? 'unknown' : alive ? 'alive' : 'gone';
  socket.on('error', () => {});
  socket.end(`${word} ${host}\n`);
}
