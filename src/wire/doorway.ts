/** Connections that have not proven who they are: few at a time, few from one source. */
import type { Socket } from 'node:net';

const UNPROVEN_MAX = 128;
const UNPROVEN_OF_ONE_MAX = 32;

export class Doorway {
  private total = 0;
  private readonly bySource = new Map<string, number>();

  /** What to call once it is over, or `null` if there is no room. */
  enter(source: string): (() => void) | null {
    const ofThis = this.bySource.get(source) ?? 0;
    if (this.total >= UNPROVEN_MAX || ofThis >= UNPROVEN_OF_ONE_MAX) return null;
    this.total += 1;
    this.bySource.set(source, ofThis + 1);
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.total -= 1;
      const left = (this.bySource.get(source) ?? 1) - 1;
      if (left === 0) this.bySource.delete(source);
      else this.bySource.set(source, left);
    };
  }
}

/** Its address without the port: the same again is the same source. */
export const sourceOf = (socket: Socket): string => socket.remoteAddress ?? 'a lost caller';
