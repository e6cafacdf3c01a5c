/**
 * What a person types at a console, on its way into the VM: kept until the owner says that it is
 * safe, and sent again from where the VM stands, so that a takeover neither loses nor repeats it.
 */
import { InputQueue, type InputState } from '../gate/serial-input.js';
import type { ControlClient } from './control-client.js';

export class TypedInput {
  private readonly client: ControlClient;
  private readonly vm: string;
  private readonly source: NodeJS.ReadableStream;
  private queue: InputQueue | null = null;
  /** Typed, and not yet in the queue. */
  private waiting = Buffer.alloc(0);
  private applied = 0;
  private complained = false;

  constructor(client: ControlClient, vm: string, source: NodeJS.ReadableStream) {
    this.client = client;
    this.vm = vm;
    this.source = source;
    source.on('data', (chunk: Buffer) => {
      this.waiting = Buffer.concat([this.waiting, chunk]);
      source.pause();
    });
  }

  /** Sends what is not in the VM yet; a host that cannot take it now is asked again next time. */
  async send(): Promise<void> {
    // All that was typed is safe: nothing to ask for.
    if (this.waiting.length === 0 && (this.queue?.isEmpty ?? true)) return;
    try {
      this.queue ??= new InputQueue((await this.write(0, Buffer.alloc(0))).applied);
      this.fill(this.queue);
      const { offset, bytes } = this.queue.pending(this.applied);
      const { acked } = await this.write(offset, bytes);
      this.queue.acknowledge(acked);
      this.complained = false;
    } catch (error) {
      if (this.complained) return;
      this.complained = true;
      const why = error instanceof Error ? error.message : String(error);
      process.stderr.write(`[input waits: ${why}]\n`);
    }
  }

  private fill(queue: InputQueue): void {
    const taken = queue.push(this.waiting);
    this.waiting = this.waiting.subarray(taken);
    if (this.waiting.length === 0) this.source.resume();
  }

  private async write(offset: number, bytes: Uint8Array): Promise<InputState> {
    const params = { offset, bytes: Buffer.from(bytes).toString('base64') };
    const state = await this.client.vm<InputState>(this.vm, 'console-write', params);
    this.applied = state.applied;
    return state;
  }
}
