/** The third vote: compare-and-swap on a few durable records, for hosts that ask. */
import { createServer, type Server, type Socket } from 'node:net';
import { LineReader, type WitnessAnswer, type WitnessRequest } from './witness-protocol.js';
import { RecordStore } from './record-store.js';

export class WitnessServer {
  private readonly store: RecordStore;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  private readonly onFault: (text: string) => void;

  constructor(stateDir: string, onFault: (text: string) => void) {
    this.store = new RecordStore(stateDir);
    this.onFault = onFault;
    this.server = createServer((socket) => this.serve(socket));
  }

  async listen(host: string, port: number): Promise<number> {
    await this.store.prepare();
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
  }

  private serve(socket: Socket): void {
    this.sockets.add(socket);
    socket.setNoDelay(true);
    socket.setEncoding('utf8');
    const reader = new LineReader();
    socket.on('data', (chunk: string) => {
      try {
        for (const line of reader.feed(chunk)) void this.answer(socket, line);
      } catch {
        socket.destroy();
      }
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.sockets.delete(socket));
  }

  private async answer(socket: Socket, line: string): Promise<void> {
    let id = 0;
    let answer: WitnessAnswer;
    try {
      const request = JSON.parse(line) as WitnessRequest;
      id = request.id;
      answer = { id, ...(await this.carryOut(request)) };
    } catch (error) {
      this.onFault(error instanceof Error ? error.message : String(error));
      answer = { id, outcome: 'error', record: null };
    }
    if (!socket.destroyed) socket.write(`${JSON.stringify(answer)}\n`);
  }

  private async carryOut(request: WitnessRequest): Promise<Omit<WitnessAnswer, 'id'>> {
    if (request.op === 'read')
      return { outcome: 'ok', record: await this.store.read(request.vmUuid) };
    const { vmUuid, expectRevision, proposal } = request;
    const { won, record } = await this.store.cas(vmUuid, expectRevision, proposal);
    return { outcome: won ? 'ok' : 'conflict', record };
  }
}
