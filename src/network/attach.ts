/** Where a NIC is plugged in, as the VM's file writes it: `stream:HOST:PORT`. */
import { NetworkError } from './network-error.js';

export interface StreamAttach {
  readonly kind: 'stream';
  readonly host: string;
  readonly port: number;
}

const STREAM = /^stream:(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):(\d{1,5})$/;

export function parseAttach(attach: string): StreamAttach {
  const match = STREAM.exec(attach);
  const port = Number(match?.[2]);
  if (!match || port < 1 || port > 65_535)
    throw new NetworkError('BAD_ATTACH', `attach "${attach}" is not of the form stream:HOST:PORT`);
  return { kind: 'stream', host: match[1].replace(/^\[|\]$/g, ''), port };
}
