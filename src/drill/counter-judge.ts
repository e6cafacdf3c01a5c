/**
 * Judges the guest's counter service from outside: what it answers against what was asked of it.
 * Each client has one operation in flight at most, so every answer has one right value.
 */

export interface Counter {
  seq: number;
  value: number;
}

interface ClientState {
  /** What the guest has told us and may never take back. */
  acknowledged: Counter;
  /** The seq in flight, or `null`. */
  inFlight: number | null;
}

export class CounterJudge {
  /** Operations acknowledged. */
  ops = 0;
  /** Acknowledged operations that a later answer does not count any more. */
  lost = 0;
  /** Operations counted that nobody asked for. */
  invented = 0;
  readonly #clients = new Map<number, ClientState>();

  /** Starts from what the guest says of `client` before its first operation. */
  begin(client: number, counter: Counter): void {
    this.#clients.set(client, { acknowledged: { ...counter }, inFlight: null });
  }

  knows(client: number): boolean {
    return this.#clients.has(client);
  }

  /** The seq of the client's next operation. */
  issue(client: number): number {
    const state = this.#stateOf(client);
    if (state.inFlight !== null) throw new Error(`client ${client} has an operation in flight`);
    state.inFlight = state.acknowledged.seq + 1;
    return state.inFlight;
  }

  /** The guest's answer to an INC; true if it acknowledges the operation in flight. */
  answer(client: number, { seq, value }: Counter): boolean {
    const state = this.#stateOf(client);
    const { acknowledged } = state;
    if (seq === state.inFlight) {
      this.#compare(value, acknowledged.value + 1);
      state.acknowledged = { seq, value };
      state.inFlight = null;
      this.ops += 1;
      return true;
    }
    if (seq > acknowledged.seq) this.invented += 1;
    else if (seq === acknowledged.seq && value !== acknowledged.value) {
      this.#compare(value, acknowledged.value);
      acknowledged.value = value;
    }
    return false;
  }

  /** The guest says that `seq` is older than what it has seen: of the one in flight, a lie. */
  stale(client: number, seq: number): boolean {
    const state = this.#stateOf(client);
    if (seq !== state.inFlight) return false;
    this.invented += 1;
    state.acknowledged = { seq, value: state.acknowledged.value + 1 };
    state.inFlight = null;
    return true;
  }

  /** The guest's answer to a GET when no answer to an INC can still change the count. */
  final(client: number, { seq, value }: Counter): void {
    const { acknowledged, inFlight } = this.#stateOf(client);
    const unanswered = inFlight !== null && seq === inFlight ? 1 : 0;
    this.#compare(value, acknowledged.value + unanswered);
    if (value !== acknowledged.value + unanswered) return;
    if (seq < acknowledged.seq) this.lost += 1;
    if (seq > acknowledged.seq + unanswered) this.invented += 1;
  }

  #compare(value: number, expected: number): void {
    if (value < expected) this.lost += expected - value;
    if (value > expected) this.invented += value - expected;
  }

  #stateOf(client: number): ClientState {
    const state = this.#clients.get(client);
    if (!state) throw new Error(`client ${client} is not known`);
    return state;
  }
}
