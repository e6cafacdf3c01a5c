/**
 * A port on the switch that the client uses, and that notices when a new owner announces the VM.
 */
import type { EthernetPort } from '../drill/packets.js';
import { StreamNic } from '../network/stream-nic.js';

const RARP = 0x8035;
const WAIT_MS_MAX = 30_000;

export class TakeoverWatch implements EthernetPort {
  onFrame: ((frame: Uint8Array) => void) | null = null;
  private readonly nic: StreamNic;
  private announced: (() => void) | null = null;

  constructor(switchPort: number) {
    this.nic = new StreamNic({ host: '127.0.0.1', port: switchPort });
    this.nic.onFrame = (frame) => {
      if (((frame[12] ?? 0) << 8) + (frame[13] ?? 0) === RARP) this.announced?.();
      this.onFrame?.(frame);
    };
  }

  send(frame: Uint8Array): void {
    this.nic.send(frame);
  }

  /** The time at which the next owner's first frame arrives, by `performance.now()`. */
  nextOwner(): Promise<number> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nobody took over')), WAIT_MS_MAX);
      this.announced = () => {
        clearTimeout(timer);
        this.announced = null;
        resolve(performance.now());
      };
    });
  }

  close(): void {
    this.nic.close();
  }
}
