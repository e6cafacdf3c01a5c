/** Reads a VM's serial line over the control socket as `mirror console` does, and keeps it. */
import { ControlClient } from '../../src/cli/control-client.js';
import type { ConsoleRead } from '../../src/cli/console.js';

const POLL_MS = 30;

export class ConsoleTap {
  text = '';
  gaps = 0;
  private client: ControlClient;
  private readonly vm: string;
  private from = 0;
  private closed = false;

  constructor(socket: string, vm: string) {
    this.client = new ControlClient(socket);
    this.vm = vm;
    void this.poll();
  }

  /** Goes on with another host, at the same place in the stream. */
  follow(socket: string): void {
    this.client = new ControlClient(socket);
  }

  async type(text: string): Promise<void> {
    await this.client.vm(this.vm, 'console-write', { bytes: Buffer.from(text).toString('base64') });
  }

  close(): void {
    this.closed = true;
  }

  private async poll(): Promise<void> {
    while (!this.closed) {
      const { client } = this;
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
