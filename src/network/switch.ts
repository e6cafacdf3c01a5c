/** A small learning Ethernet switch for `stream:` NICs: every connection is a port. */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { isGroup, macAt, MacTable } from './mac-table.js';
import { NetworkError } from './network-error.js';
import { StreamFrameReader, writeFrame } from './stream-framing.js';

const PORTS_MAX = 256;
const QUEUE_BYTES_MAX = 1 << 20;
const ETHERNET_HEADER_BYTES = 14;
const TARGET_AT = 0;
const SOURCE_AT = 6;
const MACS = { entriesMax: 4_096, ageMsMax: 300_000 };

export interface SwitchFigures {
  readonly ports: number;
  readonly macs: number;
  readonly framesForwarded: number;
  readonly framesFlooded: number;
  readonly framesDropped: number;
}

export class EthernetSwitch {
  private readonly server: Server;
  private readonly ports = new Set<Socket>();
  private readonly macs = new MacTable<Socket>(MACS);
  private framesForwarded = 0;
  private framesFlooded = 0;
  private framesDropped = 0;

  constructor() {
    this.server = createServer({ noDelay: true }, (socket) => this.plug(socket));
    this.server.maxConnections = PORTS_MAX;
  }

  /** Resolves to where it listens; port 0 takes any free one. */
  listen(host: string, port: number): Promise<{ host: string; port: number }> {
    return new Promise((resolve, reject) => {
      const fail = (cause: Error): void =>
        reject(new NetworkError('LISTEN_FAILED', `cannot listen on ${host}:${port}`, { cause }));
      this.server.once('error', fail);
      this.server.listen(port, host, () => {
        this.server.off('error', fail);
        const bound = this.server.address() as AddressInfo;
        resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  get figures(): SwitchFigures {
    return {
      ports: this.ports.size,
      macs: this.macs.size,
      framesForwarded: this.framesForwarded,
      framesFlooded: this.framesFlooded,
      framesDropped: this.framesDropped,
    };
  }

  close(): Promise<void> {
    for (const port of this.ports) port.destroy();
    return new Promise((resolve) => {
      this.server.close(() => resolve());
    });
  }

  private plug(socket: Socket): void {
    this.ports.add(socket);
    const reader = new StreamFrameReader((frame) => this.forward(socket, frame));
    socket.on('data', (chunk: Buffer) => {
      try {
        reader.feed(chunk);
      } catch {
        socket.destroy(); // Not a stream of frames.
      }
    });
    socket.on('error', () => {}); // 'close' follows.
    socket.on('end', () => socket.destroy());
    socket.once('close', () => {
      this.ports.delete(socket);
      this.macs.forget(socket);
    });
  }

  private forward(from: Socket, frame: Uint8Array): void {
    if (frame.length < ETHERNET_HEADER_BYTES) {
      this.framesDropped += 1;
      return;
    }
    const nowMs = performance.now();
    if (!isGroup(frame, SOURCE_AT)) this.macs.learn(macAt(frame, SOURCE_AT), from, nowMs);
    const known = isGroup(frame, TARGET_AT)
      ? null
      : this.macs.find(macAt(frame, TARGET_AT), nowMs);
    if (known) {
      this.framesForwarded += 1;
      if (known !== from) this.send(known, frame);
      return;
    }
    this.framesFlooded += 1;
    for (const port of this.ports) if (port !== from) this.send(port, frame);
  }

  private send(port: Socket, frame: Uint8Array): void {
    if (!port.writable || !writeFrame(port, frame, QUEUE_BYTES_MAX)) this.framesDropped += 1;
  }
}
