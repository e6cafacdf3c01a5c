/**
 * A network of namespaces: `hosts` of them with a bridge each, whose uplinks meet on the bridge of
 * one more, where clients live. All of it goes with `remove`.
 */
import { ip } from '../network/namespaces.js';

export const NET = '10.88.0';
export const CLIENT_IP = `${NET}.254`;
export const GUEST_IP = `${NET}.10`;

export interface Lan {
  readonly client: string;
  readonly hosts: readonly { name: string; ip: string }[];
  /** The cable of a host, both directions. */
  setUplink(host: number, up: boolean): void;
  remove(): void;
}

function bridge(namespace: string, address: string): void {
  const inside = (...args: string[]): string => ip('-n', namespace, ...args);
  inside('link', 'set', 'lo', 'up');
  inside('link', 'add', 'br0', 'type', 'bridge');
  inside('addr', 'add', `${address}/24`, 'dev', 'br0');
  inside('link', 'set', 'br0', 'up');
}

function cable(from: string, to: string, name: string): void {
  ip('-n', from, 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', name, 'netns', to);
  for (const [namespace, end] of [
    [from, 'up0'],
    [to, name],
  ]) {
    ip('-n', namespace, 'link', 'set', end, 'master', 'br0');
    ip('-n', namespace, 'link', 'set', end, 'up');
  }
}

export function makeLan(): Lan {
  const nameOf = (part: string): string => `mirror-${process.pid}-${part}`;
  const client = nameOf('c');
  const hosts = ['a', 'b'].map((part, index) => ({
    ...{ name: nameOf(part), ip: `${NET}.${index + 1}` },
  }));
  const made: string[] = [];
  const remove = (): void => {
    for (const name of made.splice(0)) ip('netns', 'del', name);
  };
  try {
    for (const { name, ip: address } of [{ name: client, ip: CLIENT_IP }, ...hosts]) {
      ip('netns', 'add', name);
      made.push(name);
      bridge(name, address);
    }
    hosts.forEach(({ name }, index) => cable(name, client, `host${index}`));
  } catch (error) {
    remove();
    throw error;
  }
  const setUplink = (host: number, up: boolean): void => {
    ip('-n', client, 'link', 'set', `host${host}`, up ? 'up' : 'down');
  };
  return { client, hosts, setUplink, remove };
}
