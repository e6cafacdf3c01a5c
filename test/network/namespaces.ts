/** Network namespaces that a test makes and removes itself. */
import { execFileSync } from 'node:child_process';

/** Empty where network namespaces, bridges and TAPs can be made. */
export function whatNamespacesNeed(): string {
  try {
    execFileSync('unshare', ['--net', 'ip', 'link', 'add', 'br0', 'type', 'bridge']);
    execFileSync('unshare', ['--net', 'ip', 'tuntap', 'add', 'tap0', 'mode', 'tap']);
    return '';
  } catch {
    return 'network namespaces with bridges and TAPs cannot be made here (root and iproute2)';
  }
}

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' });
}
