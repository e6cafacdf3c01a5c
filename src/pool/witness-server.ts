/** The third vote: compare-and-swap on a few durable records, for hosts that ask. */
import { mkdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { DirLock } from './dir-lock.js';
import { RecordStore } from './record-store.js';
import { LineReader, parseRequest, type WitnessAnswer } from './witness-protocol.js';

const CONNECTIONS_MAX = 1_024;
/** Requests of one connection that have no answer yet. */
const UNANSWERED_MAX = 256;
const UNSENT_BYTES_MAX = 1 << 20;

export class WitnessServer {
  private readonly stateDir: string;
  private readonly store: RecordStore;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private readonly onFault: (text: string) => void;
  private lock: DirLock | null = null;

  constructor(stateDir: string, onFault: (text: string) => void) {
    this.stateDir = stateDir;
    this.store = new RecordStore(stateDir);
    this.onFault = onFault;
    this.server = createServer((socket) => this.serve(socket));
    this.server.maxConnections = CONNECTIONS_MAX;
  }

  async listen(host: string, port: number): Promise<number> {
    mkdirSync(this.stateDir, { recursive: true, mode: 0o700 });
    this.lock = DirLock.acquire(this.stateDir);
    await this.store.prepare(this.onFault);
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      this.server.listen(port, host, resolve);
    });
    const address = this.server.address();
    return typeof address === 'object' && address ? address.port : port;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
    this.lock?.release();
    this.lock = null;
  }

  private serve(socket: Socket): void {
    this.sockets.add(socket);
    socket.setNoDelay(true);
    socket.setEncoding('utf8');
    const reader = new LineReader();
    let unanswered = 0;
    const refuse = (error: unknown): void => {
      if (!socket.destroyed) this.onFault(`a connection is dropped: ${textOf(error)}`);
      socket.destroy();
    };
    socket.on('data', (chunk: string) => {
      try {
        for (const line of reader.feed(chunk)) {
          unanswered += 1;
          if (unanswered > UNANSWERED_MAX) throw new Error('too many requests at once');
          const answered = this.answer(line).then((answer) => {
            unanswered -= 1;
            if (socket.destroyed) return;
            if (socket.writableLength > UNSENT_BYTES_MAX) throw new Error('it does not read');
            socket.write(`${JSON.stringify(answer)}\n`);
          });
          answered.catch(refuse);
        }
      } catch (error) {
        refuse(error);
      }
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.sockets.delete(socket));
  }

  /** Throws only on what is no request at all. */
  private async answer(line: string): Promise<WitnessAnswer> {
    const request = parseRequest(line);
    const { id, vmUuid } = request;
    try {
      if (request.op === 'read') {
        const record = await this.store.read(vmUuid);
        return { id, outcome: 'ok', record };
      }
      const { won, record } = await this.store.cas(
        vmUuid,
        request.expectRevision,
        request.proposal,
      );
      return { id, outcome: won ? 'ok' : 'conflict', record };
    } catch (error) {
      this.onFault(textOf(error));
      return { id, outcome: 'error', record: null };
    }
  }
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
