/**
 * Where a NIC is plugged in, as the VM's file writes it: `stream:HOST:PORT`, `tap:BRIDGE`, or
 * `user:[[ADDRESS:]HOSTPORT=GUESTPORT,...]`.
 */
import { NetworkError } from './network-error.js';

export interface StreamAttach {
  readonly kind: 'stream';
  readonly host: string;
  readonly port: number;
}

export interface TapAttach {
  readonly kind: 'tap';
  readonly bridge: string;
}

/** A TCP port of the host that leads to one of the guest's. */
export interface Forward {
  /** Where the host listens; empty: on all its addresses. */
  readonly address: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

export interface UserAttach {
  readonly kind: 'user';
  readonly forwards: readonly Forward[];
}

export type Attach = StreamAttach | TapAttach | UserAttach;

export const ATTACH_FORMS = 'stream:HOST:PORT, tap:BRIDGE, or user:HOSTPORT=GUESTPORT';
const STREAM = /^stream:(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):(\d{1,5})$/;
/** An interface's name is 15 bytes at most. */
const TAP = /^tap:([A-Za-z0-9_.-]{1,15})$/;
const FORWARD = /^(?:(\d{1,3}(?:\.\d{1,3}){3}):)?(\d{1,5})=(\d{1,5})$/;
const PORT_MAX = 65_535;

const isPort = (port: number): boolean => port >= 1 && port <= PORT_MAX;

function bad(attach: string): NetworkError {
  return new NetworkError('BAD_ATTACH', `attach "${attach}" is not of the form ${ATTACH_FORMS}`);
}

function parseForward(text: string, attach: string): Forward {
  const [, address = '', host, guest] = FORWARD.exec(text) ?? [];
  const [hostPort, guestPort] = [Number(host), Number(guest)];
  if (!isPort(hostPort) || !isPort(guestPort)) throw bad(attach);
  return { address, hostPort, guestPort };
}

export function parseAttach(attach: string): Attach {
  const [, bridge] = TAP.exec(attach) ?? [];
  if (bridge) return { kind: 'tap', bridge };
  if (attach.startsWith('user:')) {
    const forwards = attach.slice('user:'.length).split(',');
    const given = forwards.length === 1 && forwards[0] === '' ? [] : forwards;
    return { kind: 'user', forwards: given.map((text) => parseForward(text, attach)) };
  }
  const [, host, digits] = STREAM.exec(attach) ?? [];
  const port = Number(digits);
  if (!host || !isPort(port)) throw bad(attach);
  return { kind: 'stream', host: host.replace(/^\[|\]$/g, ''), port };
}
