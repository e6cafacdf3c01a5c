/**
 * A NIC's cable into a `stream:` network: dials, and dials again when the connection is lost. What
 * cannot be sent soon is dropped and counted, as on any network.
 */
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import type { NicLink } from './nic-link.js';
import { StreamFrameReader, writeFrame } from './stream-framing.js';

const QUEUE_BYTES_MAX = 1 << 20;
/** While there is no connection: few frames, and only for as long as a peer would wait for them. */
const WAITING_BYTES_MAX = 256 << 10;
const WAITING_MS_MAX = 2_000;
const REDIAL_MS_MIN = 20;
const REDIAL_MS_MAX = 1_000;
const CONNECT_MS_MAX = 3_000;
const KEEPALIVE_MS = 5_000;

interface WaitingFrame {
  readonly frame: Uint8Array;
  readonly atMs: number;
}

export type StreamAddress =
  { readonly host: string; readonly port: number } | { readonly path: string };

const toOptions = (address: StreamAddress): NetConnectOpts =>
  'path' in address
    ? { path: address.path }
    : { host: address.host, port: address.port, noDelay: true };

export class StreamNic implements NicLink {
  onFrame: ((frame: Uint8Array) => void) | null = null;
  onConnected: (() => void) | null = null;
  framesSent = 0;
  framesReceived = 0;
  /** Frames that found no connection or no room. */
  framesDropped = 0;
  private readonly address: StreamAddress;
  private socket: Socket | null = null;
  private up = false;
  private closed = false;
  private redialMs = REDIAL_MS_MIN;
  private timer: NodeJS.Timeout | null = null;
  private waiting: WaitingFrame[] = [];
  private waitingBytes = 0;

  constructor(address: StreamAddress) {
    this.address = address;
    this.dial();
  }

  get connected(): boolean {
    return this.up;
  }

  /** `frame` is kept until it has left: it must not change. */
  send(frame: Uint8Array): void {
    if (this.closed) return;
    if (!this.up || !this.socket) this.keepWaiting(frame);
    else if (writeFrame(this.socket, frame, QUEUE_BYTES_MAX)) this.framesSent += 1;
    else this.framesDropped += 1;
  }

  close(): void {
    this.closed = true;
    this.up = false;
    this.waiting = [];
    if (this.timer) clearTimeout(this.timer);
    this.socket?.destroy();
    this.socket = null;
  }

  private dial(): void {
    const socket = connect(toOptions(this.address));
    this.socket = socket;
    const reader = new StreamFrameReader((frame) => {
      this.framesReceived += 1;
      if (!this.closed) this.onFrame?.(frame);
    });
    this.timer = setTimeout(() => socket.destroy(), CONNECT_MS_MAX);
    socket.once('connect', () => this.dialed(socket));
    socket.on('data', (chunk: Buffer) => {
      try {
        reader.feed(chunk);
      } catch {
        socket.destroy(); // A peer that speaks something else: dial again.
      }
    });
    socket.on('error', () => {}); // 'close' follows.
    socket.on('end', () => socket.destroy());
    socket.once('close', () => this.lost());
  }

  private dialed(socket: Socket): void {
    if (this.timer) clearTimeout(this.timer);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    this.up = true;
    this.redialMs = REDIAL_MS_MIN;
    const waiting = this.waiting;
    this.waiting = [];
    this.waitingBytes = 0;
    const since = performance.now() - WAITING_MS_MAX;
    for (const { frame, atMs } of waiting) {
      if (atMs >= since) this.send(frame);
      else this.framesDropped += 1;
    }
    this.onConnected?.();
  }

  private lost(): void {
    this.up = false;
    if (this.closed) return;
    if (this.timer) clearTimeout(this.timer);
    this.timer = setTimeout(() => this.dial(), this.redialMs);
    this.redialMs = Math.min(this.redialMs * 2, REDIAL_MS_MAX);
  }

  private keepWaiting(frame: Uint8Array): void {
    this.waiting.push({ frame, atMs: performance.now() });
    this.waitingBytes += frame.length;
    while (this.waitingBytes > WAITING_BYTES_MAX) {
      this.waitingBytes -= this.waiting.shift()?.frame.length ?? 0;
      this.framesDropped += 1;
    }
  }
}
