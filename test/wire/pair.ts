/** Two connected sockets on loopback, and sessions over them. */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import type { FrameCodec } from '../../src/wire/frame.js';
import { makeCertificate, pemOf } from '../../src/wire/certificate.js';
import { Session } from '../../src/wire/session.js';
import { startTls } from '../../src/wire/tls.js';
import type { VmMessage } from '../../src/wire/vm-messages.js';

export async function socketPair(): Promise<{ a: Socket; b: Socket }> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const accepted = new Promise<Socket>((resolve) => {
    server.once('connection', resolve);
  });
  const a = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const b = await accepted;
  server.close();
  a.on('error', () => {});
  b.on('error', () => {});
  return { a, b };
}

const identities = ['a', 'b'].map((name) => {
  const { keyPem, certificate } = makeCertificate(name, { fromMs: 0, toMs: 4e12 });
  return { keyPem, certPem: pemOf(certificate), certificate };
});

/** The same with TLS on top; `reset` cuts the connection of `a` below it. */
export async function securePair(): Promise<{ a: Socket; b: Socket; reset: () => void }> {
  const raw = await socketPair();
  const [a, b] = await Promise.all([
    startTls(raw.a, 'client', identities[0], 5_000),
    startTls(raw.b, 'server', identities[1], 5_000),
  ]);
  return { a: a.socket, b: b.socket, reset: () => raw.a.resetAndDestroy() };
}

export async function plainPair(): Promise<{ a: Socket; b: Socket; reset: () => void }> {
  const { a, b } = await socketPair();
  return { a, b, reset: () => a.resetAndDestroy() };
}

export interface Received {
  readonly message: VmMessage;
  readonly payload: Uint8Array;
}

/** A session that notes what happens to it. */
export class Noted {
  readonly session: Session;
  readonly received: Received[] = [];
  /** Reasons of all closings; more than one is a fault. */
  readonly closings: (Error | null)[] = [];

  constructor(socket: Socket, codec: FrameCodec, sendBytesMax = 1 << 20) {
    this.session = new Session(socket, codec, { sendBytesMax });
    this.session.onMessage = (message, payload) => {
      this.received.push({ message, payload });
    };
    this.session.onClose = (reason) => {
      this.closings.push(reason);
    };
    this.session.start();
  }

  get closingCode(): string | undefined {
    const [reason] = this.closings;
    return reason ? String((reason as NodeJS.ErrnoException).code) : undefined;
  }
}
