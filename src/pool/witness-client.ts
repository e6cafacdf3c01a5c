/** A host's side of the witness: one warm connection, and `unknown` for whatever got no answer. */
import type { Socket } from 'node:net';
import { MirrorError } from '../core/errors.js';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal } from '../core/record.js';
import { connectTo, dialPinned } from '../wire/dial.js';
import { preambleOf } from '../wire/preamble.js';
import type { Security } from '../wire/security.js';
import { LineReader, parseAnswer, refusalIn, type WitnessAnswer } from './witness-protocol.js';

interface Waiting {
  settle(reply: ArbiterReply): void;
  readonly timer: NodeJS.Timeout;
}

/** One connection, from the wish for it on. */
interface Line {
  /** `null` until it is there, and until the witness has proven who it is. */
  socket: Socket | null;
  readonly unsent: string[];
  over: boolean;
}

const WAITING_MAX = 64;

export interface WitnessClientOptions {
  readonly deadlineMs: number;
  /** How this host connects; without it, in plain. */
  readonly security?: Security | undefined;
  readonly onFault?: ((text: string) => void) | undefined;
}

export class WitnessClient {
  private readonly address: string;
  private readonly options: WitnessClientOptions;
  private readonly waiting = new Map<number, Waiting>();
  private line: Line | null = null;
  private nextId = 1;
  private closed = false;
  private lastFault = '';

  /** `address` is HOST:PORT, with or without `witness:` before it. */
  constructor(address: string, options: WitnessClientOptions) {
    this.address = address.replace(/^witness:/, '');
    this.options = options;
  }

  read(vmUuid: string): Promise<ArbiterReply> {
    return this.ask({ op: 'read', vmUuid });
  }

  cas(vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply> {
    return this.ask({ op: 'cas', vmUuid, expectRevision, proposal });
  }

  close(): void {
    this.closed = true;
    if (this.line) this.drop(this.line);
  }

  private ask(body: object): Promise<ArbiterReply> {
    return new Promise((resolve) => {
      if (this.closed || this.waiting.size >= WAITING_MAX) return resolve({ outcome: 'unknown' });
      const id = this.nextId;
      this.nextId += 1;
      const timer = setTimeout(() => {
        this.settle(id, { outcome: 'unknown' });
        // A connection that does not answer is not worth keeping.
        if (this.line) this.drop(this.line);
      }, this.options.deadlineMs);
      this.waiting.set(id, { settle: resolve, timer });
      this.send(`${JSON.stringify({ id, ...body })}\n`);
    });
  }

  private send(text: string): void {
    if (!this.line) {
      this.line = { socket: null, unsent: [], over: false };
      void this.open(this.line);
    }
    const { socket, unsent } = this.line;
    if (socket) socket.write(text);
    else unsent.push(text);
  }

  private async open(line: Line): Promise<void> {
    try {
      const socket = await this.connect();
      if (line.over) {
        socket.destroy();
        return;
      }
      line.socket = socket;
      this.listen(line, socket);
      for (const text of line.unsent.splice(0)) socket.write(text);
    } catch (error) {
      // That it cannot be reached the core tells; that it is not the right one, nobody else does.
      if (error instanceof MirrorError) this.fault(error.message);
      this.drop(line);
    }
  }

  private async connect(): Promise<Socket> {
    const { address } = this;
    const { security, deadlineMs } = this.options;
    const route = security?.routeTo(address) ?? 'plain';
    if (route === 'plain' || !security) return connectTo(address, deadlineMs);
    const call = { address, preamble: preambleOf('witness'), deadlineMs };
    return (await dialPinned(security, route, call)).socket;
  }

  private listen(line: Line, socket: Socket): void {
    const reader = new LineReader();
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      try {
        for (const text of reader.feed(chunk)) this.hear(text);
      } catch {
        socket.destroy();
      }
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.drop(line));
    if (socket.destroyed) this.drop(line);
  }

  private hear(text: string): void {
    const refusal = refusalIn(text);
    if (refusal === null) this.answered(parseAnswer(text));
    else this.fault(`the witness refuses this host: ${refusal}`);
  }

  private answered(answer: WitnessAnswer): void {
    const { id, outcome, record, reason } = answer;
    if (reason !== undefined) this.fault(`the witness: ${reason}`);
    else this.lastFault = '';
    this.settle(id, outcome === 'error' ? { outcome: 'unknown' } : { outcome, record });
  }

  private settle(id: number, reply: ArbiterReply): void {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    this.waiting.delete(id);
    clearTimeout(waiting.timer);
    waiting.settle(reply);
  }

  /** Whatever it was asked has no answer. */
  private drop(line: Line): void {
    line.over = true;
    line.socket?.destroy();
    if (this.line !== line) return;
    this.line = null;
    for (const id of [...this.waiting.keys()]) this.settle(id, { outcome: 'unknown' });
  }

  /** The same again is no news. */
  private fault(text: string): void {
    if (text === this.lastFault || this.closed) return;
    this.lastFault = text;
    this.options.onFault?.(text);
  }
}
