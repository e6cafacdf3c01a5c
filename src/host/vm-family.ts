/**
 * The processes of one VM on one host. There may be several for a while: a frozen owner that will
 * find itself superseded, next to the standby that the new owner has asked for. One speaks for all.
 */
import type { VmChild } from './vm-child.js';

export class VmFamily {
  private children: VmChild[] = [];

  add(child: VmChild): void {
    this.children.push(child);
  }

  /** Forgets the ended, but for the last of them: its last words may be asked for. */
  prune(): void {
    const last = this.children.findLast((child) => child.ended);
    this.children = this.children.filter((child) => !child.ended || child === last);
  }

  living(): VmChild[] {
    return this.children.filter((child) => !child.ended);
  }

  /** The living one that saw the newest record; the owner among equals, then the newest. */
  current(): VmChild | null {
    const living = this.living();
    const candidates = living.length > 0 ? living : this.children;
    return candidates.reduce<VmChild | null>(
      (best, child) => (best === null || rank(child) >= rank(best) ? child : best),
      null,
    );
  }
}

function rank(child: VmChild): number {
  const { status } = child;
  if (!status) return 0;
  return status.generation * 2 + (status.role === 'primary' ? 1 : 0);
}
