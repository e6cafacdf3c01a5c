/**
 * The cables of a VM's NICs. A host that may take over has them ready, so that what is missing
 * there (a bridge, a privilege, a program) is known before it is needed.
 */
import { parseAttach, type Attach } from './attach.js';
import { checkPasst, UserLink } from './user-link.js';
import { StreamNic } from './stream-nic.js';

export interface NicLink {
  onFrame: ((frame: Uint8Array) => void) | null;
  readonly connected: boolean;
  /** `frame` is kept until it has left: it must not change. */
  send(frame: Uint8Array): void;
  close(): void;
}

export interface ReadyLink {
  /** Connections do not outlive a takeover. */
  readonly resets: boolean;
  /** The VM runs here from now on. Once only. */
  plugIn(): NicLink;
  close(): void;
}

async function readyLink(attach: Attach): Promise<ReadyLink> {
  if (attach.kind === 'tap') {
    const { TapLink } = await import('./tap-link.js');
    return TapLink.open(attach.bridge);
  }
  if (attach.kind === 'user') {
    checkPasst();
    return { resets: true, plugIn: () => new UserLink(attach.forwards), close: () => {} };
  }
  return { resets: false, plugIn: () => new StreamNic(attach), close: () => {} };
}

/** One for each NIC, in order. */
export async function readyLinks(nics: readonly { id: string; attach: string }[]) {
  const ready: ReadyLink[] = [];
  try {
    for (const { attach } of nics) ready.push(await readyLink(parseAttach(attach)));
  } catch (error) {
    for (const link of ready) link.close();
    throw error;
  }
  return ready;
}
