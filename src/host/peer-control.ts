/** What one daemon may ask another: whether a certain VM process still lives. One line each way. */
import { connect, type Socket } from 'node:net';
import { encodePreamble } from '../wire/preamble.js';

/** `unknown` unless the daemon itself said yes or no. */
export function probePeer(
  address: string,
  vmUuid: string,
  incarnation: string,
  deadlineMs: number,
): Promise<boolean | 'unknown'> {
  const at = address.lastIndexOf(':');
  return new Promise((resolve) => {
    const socket = connect({ host: address.slice(0, at), port: Number(address.slice(at + 1)) });
    const finish = (answer: boolean | 'unknown'): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => finish('unknown'), deadlineMs);
    socket.on('error', () => finish('unknown'));
    socket.on('close', () => finish('unknown'));
    socket.on('data', (chunk: Buffer) => {
      const text = chunk.toString().trim();
      finish(text === 'alive' ? true : text === 'gone' ? false : 'unknown');
    });
    socket.on('connect', () => {
      const preamble = { versions: [1], kind: 'control', vmUuid, vmName: incarnation } as const;
      socket.write(encodePreamble({ ...preamble, versions: [1], role: 'observer' }));
    });
  });
}

export function answerProbe(socket: Socket, alive: boolean): void {
  socket.end(alive ? 'alive\n' : 'gone\n');
}
