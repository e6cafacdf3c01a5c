/** Reads a VM's serial line over the control socket as `mirror console` does, and keeps it. */
import { ControlClient } from '../../src/cli/control-client.js';
import { PassThrough } from 'node:stream';
import type { ConsoleRead } from '../../src/cli/console.js';
import { TypedInput } from '../../src/cli/typed-input.js';

const POLL_MS = 30;

export class ConsoleTap {
  text = '';
  gaps = 0;
  private client: ControlClient;
  private readonly vm: string;
  private from = 0;
  private closed = false;
  private readonly keyboard = new PassThrough();
  private readonly typed: TypedInput;

  constructor(socket: string, vm: string) {
    this.client = new ControlClient(socket);
    this.vm = vm;
    this.typed = new TypedInput(this.client, vm, this.keyboard);
    void this.poll();
  }

  /** Goes on with another host, at the same place in the stream. */
  follow(socket: string): void {
    this.client = new ControlClient(socket);
  }

  type(text: string): void {
    this.keyboard.write(text);
  }

  close(): void {
    this.closed = true;
  }

  private async poll(): Promise<void> {
    while (!this.closed) {
      const { client } = this;
      await this.typed.send();
      try {
        const read = await client.vm<ConsoleRead>(this.vm, 'console-read', { from: this.from });
        const bytes = Buffer.from(read.bytes, 'base64');
        if (client === this.client) {
          if (read.gap) this.gaps += 1;
          this.text += bytes.toString('latin1');
          this.from = read.offset + bytes.length;
        }
      } catch {
        // Nobody serves the VM at this moment.
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}
