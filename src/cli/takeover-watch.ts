/**
 * A port on the switch that the client uses, and that notices when a new owner's guest is heard.
 */
import type { EthernetPort } from '../drill/packets.js';
import { StreamNic } from '../network/stream-nic.js';

const RARP = 0x8035;
const WAIT_MS_MAX = 30_000;

/** Both by `performance.now()`. */
export interface NewOwner {
  /** The switch learned where the VM is now; this frame is the host's own. */
  readonly announcedAtMs: number;
  /** The first frame of the guest after that: output which the gate let out. */
  readonly outputAtMs: number;
}

export class TakeoverWatch implements EthernetPort {
  onFrame: ((frame: Uint8Array) => void) | null = null;
  private readonly nic: StreamNic;
  private noticed: ((isAnnouncement: boolean) => void) | null = null;

  constructor(switchPort: number) {
    this.nic = new StreamNic({ host: '127.0.0.1', port: switchPort });
    this.nic.onFrame = (frame) => {
      this.noticed?.(((frame[12] ?? 0) << 8) + (frame[13] ?? 0) === RARP);
      this.onFrame?.(frame);
    };
  }

  send(frame: Uint8Array): void {
    this.nic.send(frame);
  }

  /** A guest that nobody talks to may have nothing to say: a client has to be at work. */
  nextOwner(): Promise<NewOwner> {
    return new Promise((resolve, reject) => {
      let announcedAtMs: number | null = null;
      const timer = setTimeout(() => {
        this.noticed = null;
        const what = announcedAtMs === null ? 'nobody took over' : 'the new owner stays silent';
        reject(new Error(`${what} within ${WAIT_MS_MAX} ms`));
      }, WAIT_MS_MAX);
      this.noticed = (isAnnouncement) => {
        if (isAnnouncement) announcedAtMs ??= performance.now();
        if (isAnnouncement || announcedAtMs === null) return;
        clearTimeout(timer);
        this.noticed = null;
        resolve({ announcedAtMs, outputAtMs: performance.now() });
      };
    });
  }

  close(): void {
    this.nic.close();
  }
}
