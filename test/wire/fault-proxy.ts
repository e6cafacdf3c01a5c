/**
 * A userspace TCP proxy that fails as networks do: it swallows silently one way or both ways with
 * all connections held open, refuses, resets. What was held back is delivered on `heal`, as by TCP.
 */
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export type Direction = 'both' | 'to' | 'from';

/** One way of one connection. */
class Lane {
  private readonly source: Socket;
  private readonly sink: Socket;
  private cut = false;
  private sourceGone = false;

  constructor(source: Socket, sink: Socket) {
    this.source = source;
    this.sink = sink;
    source.on('data', (chunk: Buffer) => {
      if (!sink.destroyed && !sink.write(chunk)) source.pause();
    });
    sink.on('drain', () => this.flow());
    source.on('end', () => this.ended());
    source.on('close', () => this.ended());
    source.on('error', () => {}); // 'close' follows.
    source.pause();
  }

  setCut(cut: boolean): void {
    this.cut = cut;
    if (cut) this.source.pause();
    else this.flow();
    if (this.sourceGone) this.ended();
  }

  private flow(): void {
    if (!this.cut) this.source.resume();
  }

  /** Even the news that the other end is gone does not pass a cut. */
  private ended(): void {
    this.sourceGone = true;
    if (!this.cut) this.sink.destroySoon();
  }
}

class Link {
  readonly client: Socket;
  readonly server: Socket;
  readonly to: Lane;
  readonly from: Lane;

  constructor(client: Socket, target: Address) {
    this.client = client;
    this.server = connect({ ...target, noDelay: true });
    this.to = new Lane(client, this.server);
    this.from = new Lane(this.server, client);
  }

  reset(): void {
    for (const socket of [this.client, this.server]) {
      if (socket.destroyed) continue;
      // One that is ending already takes no reset: its handle would stay open.
      if (socket.connecting || socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
  }
}

export class FaultProxy {
  /** Where new connections go. */
  target: Address;
  private server: Server | null = null;
  private port = 0;
  private readonly links = new Set<Link>();
  /** Accepted while nothing gets through to the target. */
  private readonly stranded = new Set<Socket>();
  private toCut = false;
  private fromCut = false;

  constructor(target: Address) {
    this.target = target;
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get connections(): number {
    return this.links.size + this.stranded.size;
  }

  /** Listens on loopback, on the same port as before if it did before; resolves to the port. */
  listen(port = this.port): Promise<number> {
    return new Promise((resolve, reject) => {
      const server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) =>
        this.accept(socket),
      );
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        this.server = server;
        this.port = (server.address() as AddressInfo).port;
        resolve(this.port);
      });
    });
  }

  /** Swallows silently what goes `to` the target, comes `from` it, or both; adds to other cuts. */
  cut(direction: Direction = 'both'): void {
    if (direction !== 'from') this.toCut = true;
    if (direction !== 'to') this.fromCut = true;
    this.apply();
  }

  heal(): void {
    this.toCut = false;
    this.fromCut = false;
    this.apply();
    for (const socket of this.stranded) this.join(socket);
    this.stranded.clear();
  }

  /** Resets every connection; new ones are served. */
  reset(): void {
    for (const link of this.links) link.reset();
    for (const socket of this.stranded) socket.resetAndDestroy();
  }

  /** New connections are refused from now on; existing ones stay. `listen` ends it. */
  refuse(): void {
    this.server?.close();
    this.server = null;
  }

  /** Resets everything and refuses what comes. */
  kill(): void {
    this.refuse();
    this.reset();
  }

  private apply(): void {
    for (const link of this.links) {
      link.to.setCut(this.toCut);
      link.from.setCut(this.fromCut);
    }
  }

  private accept(socket: Socket): void {
    if (!this.toCut && !this.fromCut) {
      this.join(socket);
      return;
    }
    this.stranded.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => this.stranded.delete(socket));
  }

  private join(socket: Socket): void {
    const link = new Link(socket, this.target);
    this.links.add(link);
    link.to.setCut(this.toCut);
    link.from.setCut(this.fromCut);
    const forget = (): void => {
      if (link.client.destroyed && link.server.destroyed) this.links.delete(link);
    };
    link.client.once('close', forget);
    link.server.once('close', forget);
  }
}
