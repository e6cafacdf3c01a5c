/** `mirror arbiter init`: makes a folder or a raw device on shared storage an arbiter. */
import { parseArbiter } from '../pool/arbiter.js';
import { formatDevice } from '../pool/device-format.js';
import { HOSTS, PLACES } from '../pool/device-layout.js';
import { FileArbiter } from '../pool/file-arbiter.js';
import { optionalCount, print, UsageError, type Command, type Input } from './command.js';

export const arbiterInit: Command = {
  name: 'arbiter init',
  args: 'file:/PATH or device:/PATH',
  about: 'make an empty folder, or a raw device, that all hosts share an arbiter, once',
  options: {
    hosts: { type: 'string', about: `device: for how many hosts, ${HOSTS.standard} unless given` },
    vms: { type: 'string', about: `device: for how many VMs, else ${PLACES.standard} at most` },
    force: { type: 'boolean', about: 'device: what is on it may go' },
  },
  async run(input) {
    const [text, ...more] = input.args;
    if (text === undefined || more.length > 0)
      throw new UsageError('which storage? file:/PATH or device:/PATH');
    const spec = parseArbiter(text);
    if (spec.kind !== 'file' && spec.kind !== 'device')
      throw new UsageError(`${text}: only a folder or a device has to be made one`);
    const [path, size] = [spec.path, sizeOf(input)];
    if (spec.kind === 'device') {
      const { hosts, places: vms } = await formatDevice(path, size);
      const room = `for ${hosts} hosts and ${vms} VMs`;
      print(input, `${path} is an arbiter ${room}: give hosts --arbiter ${text}`, {
        ...{ path, hosts, vms },
      });
      return 0;
    }
    if (size.hosts !== null || size.vms !== null || size.force)
      throw new UsageError('--hosts, --vms and --force are for a device');
    await FileArbiter.init(path);
    print(input, `${path} is an arbiter: give hosts --arbiter ${text}`, { path });
    return 0;
  },
};

function sizeOf(input: Input): { hosts: number | null; vms: number | null; force: boolean } {
  const within = (name: string, min: number, max: number): number | null => {
    const count = optionalCount(input, name) ?? null;
    if (count !== null && (count < min || count > max))
      throw new UsageError(`--${name} ${count}: must be from ${min} to ${max}`);
    return count;
  };
  const [hosts, vms] = [within('hosts', 2, HOSTS.max), within('vms', 1, PLACES.max)];
  return { hosts, vms, force: input.options['force'] === true };
}
