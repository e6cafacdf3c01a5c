/**
 * The verifying client of the built-in guest: many counters, each incremented over UDP with
 * retransmission until the guest answers, and a verdict on what it answered. Judged from outside.
 */
import { MirrorError } from '../core/errors.js';
import { CounterJudge } from './counter-judge.js';
import type { Counter } from './counter-judge.js';
import { clockMs, GuestEndpoint } from './guest-endpoint.js';
import type { EthernetPort } from './packets.js';

export class GuestClientTimeout extends MirrorError {
  constructor(what: string, deadlineMs: number) {
    super('guest-client-timeout', `the guest did not ${what} within ${deadlineMs} ms`);
  }
}

export interface GuestClientOptions {
  port: EthernetPort;
  /** Own addresses on the guest's network. */
  mac: string;
  ip: string;
  guestIp: string;
  /** How many counters to use, each with one operation in flight at most. */
  clients?: number;
  /** The first client's number in the guest; two runs at a time must not share numbers. */
  firstClient?: number;
  /** How many requests may be unanswered at a time. */
  window?: number;
  /** After how long an unanswered request is sent again. */
  retryMs?: number;
  /** How long a client rests after each answer. */
  restMs?: number;
}

export interface GuestVerdict {
  ops: number;
  lost: number;
  invented: number;
  retries: number;
  /** From the first sending of an operation to its answer. */
  rttMsP50: number;
  rttMsMax: number;
  /** The longest time without any answer while something was asked. */
  longestGapMs: number;
}

type OnGet = (client: number, counter: Counter) => void;

interface Pending {
  text: string;
  firstSentAt: number;
  sentAt: number;
}

const INC_PORT = 40_007;
const GET_PORT = 40_008;
const SAMPLES = 1 << 16;
const CLIENTS_MAX = 256;
const WINDOW = 32;

export class GuestClient {
  readonly #endpoint: GuestEndpoint;
  readonly #judge = new CounterJudge();
  readonly #ids: number[];
  readonly #window: number;
  /** Clients that wait for room in the window: for their next operation, and with a GET. */
  #ready: number[] = [];
  #getsLeft: number[] = [];
  readonly #retryMs: number;
  readonly #restMs: number;
  readonly #timer: NodeJS.Timeout;
  /** Requests not answered yet: by client, of INC and of GET. */
  readonly #incs = new Map<number, Pending>();
  readonly #gets = new Map<number, Pending>();
  readonly #restUntil = new Map<number, number>();
  readonly #rtts = new Float64Array(SAMPLES);
  #onGet: OnGet = () => {};
  #issuing = false;
  #opsWanted = Number.POSITIVE_INFINITY;
  #issued = 0;
  #retries = 0;
  #rttMaxMs = 0;
  #rttCount = 0;
  #longestGapMs = 0;
  #lastAnswerAt = 0;

  constructor(options: GuestClientOptions) {
    const count = options.clients ?? 64;
    if (!(count >= 1 && count <= CLIENTS_MAX)) throw new RangeError(`clients: 1..${CLIENTS_MAX}`);
    const first = options.firstClient ?? 1;
    this.#ids = Array.from({ length: count }, (_, i) => first + i);
    this.#window = options.window ?? WINDOW;
    this.#retryMs = options.retryMs ?? 20;
    this.#restMs = options.restMs ?? 0;
    this.#endpoint = new GuestEndpoint(options.port, options);
    this.#endpoint.onUdp = (toPort, text) => this.#onAnswer(toPort, text);
    this.#timer = setInterval(() => this.#onTimer(), Math.max(1, this.#retryMs / 4));
  }

  /** Finds the guest, and asks where each counter stands. */
  async connect(deadlineMs: number): Promise<void> {
    await this.#endpoint.resolve(deadlineMs);
    await this.#getAll(deadlineMs, (client, counter) => this.#judge.begin(client, counter));
  }

  /** Starts operations on all counters; they go on until `finish`, or `ops` in all. */
  start(ops = Number.POSITIVE_INFINITY): void {
    this.#issuing = true;
    this.#opsWanted = this.#issued + ops;
    this.#lastAnswerAt = clockMs();
    this.#ready = this.#ids.filter((client) => !this.#incs.has(client));
    this.#pump();
  }

  /** Starts no more operations, waits for the answers, and compares every counter at last. */
  async finish(deadlineMs: number): Promise<GuestVerdict> {
    this.#issuing = false;
    const endAt = clockMs() + deadlineMs;
    await this.#settle(() => this.#incs.size === 0, 'answer every operation', deadlineMs);
    const leftMs = Math.max(1, endAt - clockMs());
    await this.#getAll(leftMs, (client, counter) => this.#judge.final(client, counter));
    return this.verdict();
  }

  /** The whole of it: connects, does `ops` operations, and judges. */
  async run(ops: number, deadlineMs: number): Promise<GuestVerdict> {
    const endAt = clockMs() + deadlineMs;
    await this.connect(deadlineMs);
    this.start(ops);
    const done = (): boolean => this.#issued >= this.#opsWanted && this.#incs.size === 0;
    await this.#settle(done, `answer ${ops} operations`, Math.max(1, endAt - clockMs()));
    return await this.finish(Math.max(1, endAt - clockMs()));
  }

  /** How it stands; final only after `finish`. */
  verdict(): GuestVerdict {
    const rtts = this.#rtts.slice(0, Math.min(this.#rttCount, SAMPLES)).sort();
    const waitingMs = this.#incs.size > 0 ? clockMs() - this.#lastAnswerAt : 0;
    return {
      ops: this.#judge.ops,
      lost: this.#judge.lost,
      invented: this.#judge.invented,
      retries: this.#retries,
      rttMsP50: rtts[rtts.length >> 1] ?? 0,
      rttMsMax: this.#rttMaxMs,
      longestGapMs: Math.max(this.#longestGapMs, waitingMs),
    };
  }

  /** ICMP echo to the guest: the round trip in `ms`. */
  ping(deadlineMs: number): Promise<number> {
    return this.#endpoint.ping(deadlineMs);
  }

  close(): void {
    this.#issuing = false;
    this.#incs.clear();
    this.#gets.clear();
    clearInterval(this.#timer);
    this.#endpoint.close();
  }

  /** Sends what the window has room for. */
  #pump(): void {
    while (this.#getsLeft.length > 0 && this.#gets.size < this.#window) {
      const client = this.#getsLeft.shift()!;
      this.#send(this.#gets, GET_PORT, client, `GET ${client}`);
    }
    const wanted = (): boolean => this.#issuing && this.#issued < this.#opsWanted;
    while (wanted() && this.#ready.length > 0 && this.#incs.size < this.#window) {
      const client = this.#ready.shift()!;
      this.#issued += 1;
      if (this.#incs.size === 0) this.#lastAnswerAt = clockMs();
      this.#send(this.#incs, INC_PORT, client, `INC ${client} ${this.#judge.issue(client)}`);
    }
  }

  #send(to: Map<number, Pending>, fromPort: number, client: number, text: string): void {
    to.set(client, { text, firstSentAt: clockMs(), sentAt: clockMs() });
    this.#endpoint.sendUdp(fromPort, text);
  }

  #onAnswer(toPort: number, text: string): void {
    const stale = /^STALE (\d+) (\d+)$/.exec(text);
    const answer = /^(\d+) (\d+) (\d+)$/.exec(text);
    const client = Number((stale ?? answer)?.[1] ?? -1);
    const seq = Number((stale ?? answer)?.[2]);
    if (toPort === GET_PORT && answer && this.#gets.delete(client)) {
      this.#onGet(client, { seq, value: Number(answer[3]) });
      this.#pump();
    }
    if (toPort !== INC_PORT || !this.#judge.knows(client)) return;
    const acknowledged = stale
      ? this.#judge.stale(client, seq)
      : this.#judge.answer(client, { seq, value: Number(answer?.[3]) });
    if (!acknowledged) return;
    this.#measure(client);
    if (this.#restMs > 0) this.#restUntil.set(client, clockMs() + this.#restMs);
    else this.#ready.push(client);
    this.#pump();
  }

  #measure(client: number): void {
    const at = clockMs();
    const rttMs = at - (this.#incs.get(client)?.firstSentAt ?? at);
    this.#incs.delete(client);
    this.#rtts[this.#rttCount % SAMPLES] = rttMs;
    this.#rttCount += 1;
    this.#rttMaxMs = Math.max(this.#rttMaxMs, rttMs);
    this.#longestGapMs = Math.max(this.#longestGapMs, at - this.#lastAnswerAt);
    this.#lastAnswerAt = at;
  }

  #onTimer(): void {
    const at = clockMs();
    this.#resend(this.#incs, INC_PORT, at);
    this.#resend(this.#gets, GET_PORT, at);
    for (const [client, until] of this.#restUntil) {
      if (until > at) continue;
      this.#restUntil.delete(client);
      this.#ready.push(client);
    }
    this.#pump();
  }

  #resend(requests: Map<number, Pending>, fromPort: number, at: number): void {
    for (const pending of requests.values()) {
      if (at - pending.sentAt < this.#retryMs) continue;
      pending.sentAt = at;
      this.#retries += 1;
      this.#endpoint.sendUdp(fromPort, pending.text);
    }
  }

  async #getAll(deadlineMs: number, onGet: OnGet): Promise<void> {
    this.#onGet = onGet;
    this.#getsLeft = [...this.#ids];
    this.#pump();
    const done = (): boolean => this.#gets.size === 0 && this.#getsLeft.length === 0;
    await this.#settle(done, 'answer every GET', deadlineMs);
  }

  async #settle(done: () => boolean, what: string, deadlineMs: number): Promise<void> {
    const endAt = clockMs() + deadlineMs;
    while (!done()) {
      if (clockMs() > endAt) throw new GuestClientTimeout(what, Math.round(deadlineMs));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}
