/** `mirror guest client` and `mirror guest build linux`. */
import { GuestClient } from '../drill/guest-client.js';
import { buildLinux } from '../guest/linux-builder.js';
import { StreamNic } from '../network/stream-nic.js';
import {
  countOption,
  durationOption,
  need,
  print,
  textOption,
  UsageError,
  type Command,
} from './command.js';

export const guestClient: Command = {
  name: 'guest client',
  args: '',
  about: "the built-in guest's verifying client: operations over the network, judged from outside",
  options: {
    switch: { type: 'string', about: 'HOST:PORT of the switch' },
    ip: { type: 'string', about: "the guest's address, 10.77.0.2 unless given" },
    ops: { type: 'string', about: 'operations to do, 1000 unless given' },
    timeout: { type: 'string', about: 'such as 60s' },
  },
  async run(input) {
    const [host, port] = need(input, 'switch').split(':');
    if (!host || !port) throw new UsageError('--switch: not HOST:PORT');
    const nic = new StreamNic({ host, port: Number(port) });
    const guestIp = String(input.options['ip'] ?? '10.77.0.2');
    const client = new GuestClient({
      ...{ port: nic, mac: '02:00:00:00:77:01', ip: '10.77.0.1', guestIp },
    });
    try {
      const ops = countOption(input, 'ops', 1_000);
      const verdict = await client.run(ops, durationOption(input, 'timeout', 60_000));
      const text = `${verdict.ops} operations, ${verdict.lost} lost, ${verdict.invented} invented`;
      print(input, `${text}, longest gap ${verdict.longestGapMs.toFixed(0)} ms`, verdict);
      return verdict.lost === 0 && verdict.invented === 0 ? 0 : 1;
    } finally {
      client.close();
      nic.close();
    }
  },
};

export const guestBuild: Command = {
  name: 'guest build',
  args: 'linux',
  about: "a small Linux guest out of Debian's packages",
  options: {
    out: { type: 'string', about: 'folder for kernel and initrd' },
    arch: { type: 'string', about: 'i386 (both engines; the default) or amd64 (QEMU)' },
    with: { type: 'string', about: 'Debian packages whose programs it shall have, such as redis' },
    start: { type: 'string', about: 'file of a script to run beside the shell' },
  },
  async run(input) {
    if (input.args[0] !== 'linux') throw new UsageError('what to build? linux');
    const log = (text: string): void => void process.stderr.write(`${text}\n`);
    const architecture = textOption(input, 'arch') ?? 'i386';
    if (architecture !== 'i386' && architecture !== 'amd64')
      throw new UsageError(`--arch ${architecture}: not i386 or amd64`);
    const packages = (textOption(input, 'with') ?? '').split(',').filter((name) => name !== '');
    const start = textOption(input, 'start') ?? null;
    const outDir = need(input, 'out');
    const built = await buildLinux({ outDir, log, architecture, packages, start });
    print(input, `${built.kernel}\n${built.initrd}\ncmdline: ${built.cmdline}`, built);
    return 0;
  },
};
