/** The YAML of a VM and of a host: what is taken, and one line for each fault of what is not. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { hostConfig, parseHostSettings } from '../../src/host/host-config.js';
import { parseVmConfig } from '../../src/host/vm-config.js';

const config = suite('config');

const GOOD = `name: web
engine: auto
memory: 64MiB
boot: { kernel: vmlinuz, initrd: sub/initrd.img, cmdline: "console=ttyS0" }
nics:
  - { id: lan, mac: "52:54:00:12:34:56", attach: "stream:[::1]:7720" }
epoch: 25ms
`;

/** The faults of a text, without the path in front of them. */
function faults(text: string): string[] {
  try {
    parseVmConfig(text, 'x.yaml');
  } catch (error) {
    assert.is((error as { code?: string }).code, 'BAD_CONFIG');
    return (error as Error).message.split('\n').map((line) => {
      assert.match(line, /^x\.yaml:\d+:\d+: /);
      return line.replace('x.yaml:', '');
    });
  }
  return [];
}

const minimal = (more: string): string =>
  `name: web\nmemory: 64MiB\nboot: { kernel: builtin }\n${more}`;

config('a whole file is taken, files beside it, the rest filled in', () => {
  const vm = parseVmConfig(GOOD, '/etc/vms/web.yaml');
  assert.is(vm.memoryBytes, 64 << 20);
  assert.is(vm.boot.kernel, '/etc/vms/vmlinuz');
  assert.is(vm.boot.initrd, '/etc/vms/sub/initrd.img');
  assert.is(vm.epochMs, 25);
  assert.is(vm.onPeerLoss, 'solo');
  const least = parseVmConfig(minimal(''), 'web.yaml');
  assert.is(least.boot.kernel, 'builtin');
  assert.is(least.epochMs, null);
  assert.equal(least.nics, []);
});

config('all faults are told at once, each where it is', () => {
  const text = `name: Web!
engine: xen
memory: 2GiB
cpus: 2
boot: { kernel: builtin, cmdlin: "x" }
nics:
  - { id: lan, mac: "52:54:00", attach: "br0" }
colour: red
epoch: 25
`;
  assert.equal(faults(text), [
    '1:1: name: is not a VM name: a-z, 0-9 and -, at most 63',
    '2:1: engine: must be auto, v86 or qemu',
    '4:1: cpus: must be 1: more are not mirrored yet',
    '5:26: boot.cmdlin: is not a known key',
    '7:16: nics.0.mac: is not a MAC address such as 52:54:00:12:34:56',
    '7:33: nics.0.attach: must be stream:HOST:PORT, tap:BRIDGE, or user:HOSTPORT=GUESTPORT',
    '9:1: epoch: must be auto, or such as 25ms, from 5ms to 1000ms',
    '8:1: colour: is not a known key',
  ]);
});

config('what this version cannot do is refused by name', () => {
  const one = (more: string, expected: RegExp): void => {
    const told = faults(minimal(more));
    assert.is(told.length, 1, told.join('\n'));
    assert.match(told[0], expected);
  };
  const shared = 'disks: [{ id: root, file: r, shared: /san/root }]';
  one(shared, /disks.0.shared: is not there yet: give a file/);
  one('protection: restart', /protection: must be mirror/);
  one('onPeerLoss: panic', /must be solo or stall/);
  one('epoch: 4ms', /epoch: must be auto/);
  const nic = (fields: string): string => `nics: [{ id: lan, ${fields} }]`;
  const mac = 'mac: "52:54:00:12:34:56"';
  one(nic(`${mac}, attach: "user:8080"`), /must be stream:HOST:PORT/);
  one(nic(`${mac}, attach: "stream:host:99999"`), /must be stream:HOST:PORT/);
  const v86 = (more: string, expected: RegExp): void => one(`engine: v86\n${more}`, expected);
  v86(nic(`${mac}, attach: "stream:h:1", model: virtio`), /^5:\d+: nics.0.model: .*no virtio/);
  const two = `{ id: a, ${mac}, attach: "tap:br0" }, { id: b, ${mac}, attach: "tap:br0" }`;
  v86(`nics: [${two}]`, /^5:1: nics: v86 takes one NIC/);
  one(nic('mac: "53:54:00:12:34:56", attach: "stream:h:1"'), /group address/);
  const sized = (memory: string): string[] => faults(minimal('').replace('64MiB', memory));
  assert.match(sized('3GiB')[0], '2:1: memory: must be at most 1984MiB with qemu');
  assert.match(sized('2GiB\nengine: v86')[0], 'memory: must be at most 1024MiB with v86');
  assert.match(sized('3MiB')[0], 'must be at least 4MiB');
  assert.match(sized('5000KiB')[0], 'must be whole MiB');
  assert.match(sized('64')[0], 'is not a size such as 64MiB');
});

const DISKED = `name: web
memory: 64MiB
boot: { disk: root }
disks:
  - { id: root, file: root.raw, size: 1GiB }
  - { id: data, file: /d/data.qcow2, readonly: true, model: virtio, format: qcow2 }
`;

config('disks are files beside the VM file, and it may boot from one', () => {
  const { boot, disks, unsafeDisks } = parseVmConfig(DISKED, '/etc/vms/web.yaml');
  assert.equal(boot, { kernel: null, initrd: null, cmdline: '', disk: 'root' });
  const [root, data] = disks;
  const unknown = { format: null, model: 'auto', readOnly: false };
  assert.equal(root, { id: 'root', file: '/etc/vms/root.raw', bytes: 1 << 30, ...unknown });
  const known = { format: 'qcow2', model: 'virtio', readOnly: true };
  assert.equal(data, { id: 'data', file: '/d/data.qcow2', bytes: null, ...known });
  assert.is(unsafeDisks, false, 'only a person says so, and not in the file');
});

config('disks that do not fit together are told, each where it is', () => {
  const text = `name: web
memory: 64MiB
boot: { disk: boot, initrd: i.img }
disks:
  - { id: root, file: a.raw, size: 1TB }
  - { id: Root, file: a.raw, model: scsi }
  - { file: "", readonly: yes }
`;
  assert.equal(faults(text), [
    '5:30: disks.0.size: is not a size such as 64MiB',
    '6:7: disks.1.id: is not a disk id: a-z, 0-9 and -, at most 20',
    '6:30: disks.1.model: must be auto, virtio or ide',
    '7:5: disks.2.id: is missing',
    '7:7: disks.2.file: must be a file',
    '7:17: disks.2.readonly: must be true or false',
  ]);
  const fitting = text
    .replace(', size: 1TB', '')
    .replace('id: Root', 'id: root')
    .replace('model: scsi', 'model: ide, readonly: true')
    .replace('  - { file: "", readonly: yes }\n', '');
  assert.equal(faults(fitting), [
    '3:21: boot.initrd: needs a kernel',
    '3:9: boot.disk: no disk has the id boot',
    '6:7: disks.1.id: another disk has it',
    '6:17: disks.1.file: another disk has it',
    '6:30: disks.1.model: must be virtio or auto: IDE has no readonly',
  ]);
  const [twice] = faults(DISKED.replace('disk: root', 'disk: root, kernel: builtin'));
  assert.is(twice, '3:9: boot.disk: cannot go with a kernel: leave out one of them');
  const [none] = faults('name: web\nmemory: 8MiB\nboot: {}\n');
  assert.is(none, '3:1: boot: must name a kernel, or a disk to boot from');
  const [line] = faults(DISKED.replace('disk: root', 'disk: root, cmdline: quiet'));
  assert.is(line, '3:21: boot.cmdline: needs a kernel');
  const v86 = faults(`${DISKED}engine: v86\n`);
  assert.equal(v86, ['4:1: disks: v86 has none yet: take engine qemu']);
  assert.equal(faults(DISKED), []);
});

config('what is missing is named; what is no YAML, or a bomb of it, is one line', () => {
  assert.equal(faults('name: web\n'), ['1:1: memory: is missing', '1:1: boot: is missing']);
  assert.is(faults('').length, 1);
  assert.is(faults('- a\n- b\n').length, 1);
  assert.match(faults('name: [web\n')[0], /^\d:\d+: /);
  assert.match(faults('name: web\nname: web2\n')[0], /^2:1: /);
  const bomb = ['x0: &x0 [a, a]'];
  for (let n = 1; n < 20; n += 1) bomb.push(`x${n}: &x${n} [*x${n - 1}, *x${n - 1}]`);
  assert.equal(faults(bomb.join('\n')).length, 1);
});

config('a host is described by its file, its options, or both', () => {
  const text = 'name: a\nlisten: 127.0.0.1:7701\narbiter: witness:127.0.0.1:7710\ndetectMs: 500\n' +
    'memory: 512MiB\n';
  const settings = parseHostSettings(text, 'host.yaml');
  const host = hostConfig({ ...settings, name: 'b' }, '/state');
  assert.equal(host, {
    ...{ name: 'b', listen: '127.0.0.1:7701', stateDir: '/state', insecure: false },
    ...{ arbiter: 'witness:127.0.0.1:7710', detectMs: 500, advertise: null },
    ...{ memoryBytes: 512 << 20, accelerator: 'auto' },
  });
  const open = { ...settings, listen: '0.0.0.0:7701', insecure: true };
  assert.throws(() => hostConfig(open, '/state'), /add --advertise HOST:PORT/);
  const advertise = '10.0.0.1:7701';
  assert.is(hostConfig({ ...open, advertise }, '/state').advertise, advertise);
  assert.throws(() => parseHostSettings('nam: a\n', 'host.yaml'), /host.yaml:1:1: nam: is not/);
  const wrong = (change: object, expected: RegExp): void =>
    assert.throws(() => hostConfig({ ...settings, ...change }, '/state'), expected);
  wrong({ detectMs: 5 }, /must be from 100/);
  wrong({ arbiter: 'etcd:1.2.3.4:1' }, /--insecure/);
  wrong({ arbiter: 'zookeeper:1.2.3.4:1' }, /not witness:HOST:PORT, etcd:/);
  wrong({ arbiter: 'file:relative' }, /file:\/PATH/);
  wrong({ listen: '0.0.0.0:7701' }, /--advertise/);
  wrong({ listen: 'here' }, /HOST:PORT/);
  // Whether it is paired with them is known later.
  const arbiterThere = { ...settings, arbiter: 'witness:10.0.0.1:7710' };
  assert.ok(hostConfig({ ...arbiterThere, listen: '10.0.0.1:7701' }, '/state'));
});

config.run();
