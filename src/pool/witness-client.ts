/** A host's side of the witness: one warm connection, and `unknown` for whatever got no answer. */
import { connect, type Socket } from 'node:net';
import type { ArbiterReply } from '../core/events.js';
import type { Proposal } from '../core/record.js';
import { parseAddress, type Address } from '../wire/address.js';
import { LineReader, parseAnswer, type WitnessAnswer } from './witness-protocol.js';

interface Waiting {
  settle(reply: ArbiterReply): void;
  readonly timer: NodeJS.Timeout;
}

const WAITING_MAX = 64;

export class WitnessClient {
  private readonly address: Address;
  private readonly deadlineMs: number;
  private readonly waiting = new Map<number, Waiting>();
  private socket: Socket | null = null;
  private nextId = 1;
  private closed = false;

  /** `address` is HOST:PORT, with or without `witness:` before it. */
  constructor(address: string, options: { deadlineMs: number }) {
    this.address = parseAddress(address.replace(/^witness:/, ''));
    this.deadlineMs = options.deadlineMs;
  }

  read(vmUuid: string): Promise<ArbiterReply> {
    return this.ask({ op: 'read', vmUuid });
  }

  cas(vmUuid: string, expectRevision: number, proposal: Proposal): Promise<ArbiterReply> {
    return this.ask({ op: 'cas', vmUuid, expectRevision, proposal });
  }

  close(): void {
    this.closed = true;
    this.socket?.destroy();
    this.dropAll();
  }

  private ask(body: object): Promise<ArbiterReply> {
    return new Promise((resolve) => {
      if (this.closed || this.waiting.size >= WAITING_MAX) return resolve({ outcome: 'unknown' });
      const id = this.nextId;
      this.nextId += 1;
      const timer = setTimeout(() => {
        this.settle(id, { outcome: 'unknown' });
        // A connection that does not answer is not worth keeping.
        this.socket?.destroy();
      }, this.deadlineMs);
      this.waiting.set(id, { settle: resolve, timer });
      this.connection().write(`${JSON.stringify({ id, ...body })}\n`);
    });
  }

  private connection(): Socket {
    if (this.socket && !this.socket.destroyed) return this.socket;
    const socket = connect({ ...this.address, noDelay: true });
    const reader = new LineReader();
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      try {
        for (const line of reader.feed(chunk)) this.answered(parseAnswer(line));
      } catch {
        socket.destroy();
      }
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      if (this.socket === socket) this.dropAll();
    });
    this.socket = socket;
    return socket;
  }

  private answered(answer: WitnessAnswer): void {
    const { id, outcome, record } = answer;
    this.settle(id, outcome === 'error' ? { outcome: 'unknown' } : { outcome, record });
  }

  private settle(id: number, reply: ArbiterReply): void {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    this.waiting.delete(id);
    clearTimeout(waiting.timer);
    waiting.settle(reply);
  }

  private dropAll(): void {
    this.socket = null;
    for (const id of [...this.waiting.keys()]) this.settle(id, { outcome: 'unknown' });
  }
}
