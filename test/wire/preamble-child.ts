/** A VM process in small: takes a handed socket and says what came on it. */
import type { Socket } from 'node:net';
import { loadFrameCodec } from '../../src/wire/frame.js';
import { Session } from '../../src/wire/session.js';

const codec = await loadFrameCodec();

process.on('message', (message: { rest: string }, socket: unknown) => {
  const handed = socket as Socket;
  const rest = Buffer.from(message.rest, 'base64');
  if (rest.length > 0) handed.unshift(rest);
  const session = new Session(handed, codec, { sendBytesMax: 1 << 20 });
  session.onMessage = (received) => {
    if (received.type !== 'heartbeat') return;
    session.send({ ...received, releasedThrough: received.sequence });
  };
  session.start();
});
process.on('disconnect', () => process.exit(0));
process.send?.('ready');
