/** Follows a VM's serial stream through takeovers, and judges that every byte came exactly once. */
import { setTimeout as sleep } from 'node:timers/promises';
import { TickJudge } from './tick-judge.js';

const POLL_MS = 100;

export interface StreamPiece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class DemoConsole {
  readonly ticks = new TickJudge();
  serialBytes = 0;
  serialBytesLost = 0;
  private readonly read: (from: number) => Promise<StreamPiece | null>;
  private following: Promise<void> | null = null;
  private stopped = false;
  private next = 0;

  /** `read` gives the stream from an offset on; null while no host can tell. */
  constructor(read: (from: number) => Promise<StreamPiece | null>) {
    this.read = read;
  }

  start(): void {
    this.following = this.follow();
  }

  stop(): void {
    this.stopped = true;
  }

  /** Takes what is there to the end, and stops. */
  async finish(): Promise<void> {
    this.stop();
    await this.following;
    await this.take();
  }

  private async follow(): Promise<void> {
    while (!this.stopped) {
      await this.take();
      await sleep(POLL_MS);
    }
  }

  private async take(): Promise<void> {
    const piece = await this.read(this.next).catch(() => null);
    if (!piece) return;
    this.serialBytesLost += piece.offset - this.next;
    this.serialBytes += piece.bytes.length;
    this.next = piece.offset + piece.bytes.length;
    this.ticks.push(piece.bytes);
  }
}
