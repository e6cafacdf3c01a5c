/** HOST:PORT as people write it, IPv6 in brackets. */
import { MirrorError } from '../core/errors.js';

export interface Address {
  readonly host: string;
  readonly port: number;
}

const ADDRESS = /^(\[[0-9a-fA-F:.]+\]|[^:[\]\s]+):(\d{1,5})$/;

export function parseAddress(text: string): Address {
  const match = ADDRESS.exec(text);
  const port = Number(match?.[2]);
  if (!match || port > 65_535)
    throw new MirrorError('BAD_ADDRESS', `${text} is not of the form HOST:PORT`);
  return { host: match[1].replace(/^\[|\]$/g, ''), port };
}

/** Whether nobody else can listen in on what goes there. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}
