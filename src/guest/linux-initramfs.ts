/** The initramfs of the Linux guest: busybox, the drivers of both engines' devices, and an init. */
import { gzipSync } from 'node:zlib';
import type { CpioEntry } from './cpio.js';
import { cpioArchive } from './cpio.js';
import type { KernelModule } from './kernel-modules.js';

/** `ip=ADDRESS/LENGTH` and `gw=ADDRESS` of the kernel's command line set up eth0. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root PS1='mirror# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module.ko 2>/dev/null; done
hostname mirror
ip link set lo up
for word in $(cat /proc/cmdline); do
  case $word in
    ip=*) ip=\${word#ip=} ;;
    gw=*) gw=\${word#gw=} ;;
  esac
done
if [ -e /sys/class/net/eth0 ]; then
  [ -n "$ip" ] && ip addr add $ip dev eth0
  ip link set eth0 up
  [ -n "$gw" ] && ip route add default via $gw
fi
echo "mirror linux up $(uname -r) ip=$ip"
while :; do setsid cttyhack sh; done
`;

const FOLDERS = ['bin', 'dev', 'lib', 'lib/modules', 'mnt', 'proc', 'root', 'sys', 'tmp'];

export function linuxInitramfs(busybox: Uint8Array, modules: readonly KernelModule[]): Uint8Array {
  const order = `${modules.map(({ name }) => name).join('\n')}\n`;
  const entries: CpioEntry[] = [
    ...FOLDERS.map((path) => ({ path, kind: 'folder' }) as const),
    { path: 'dev/console', kind: 'device', major: 5, minor: 1 },
    { path: 'dev/null', kind: 'device', mode: 0o666, major: 1, minor: 3 },
    { path: 'bin/busybox', kind: 'file', mode: 0o755, data: busybox },
    { path: 'init', kind: 'file', mode: 0o755, data: INIT },
    { path: 'lib/modules/order', kind: 'file', data: order },
    ...modules.map(
      ({ name, bytes }) => ({ path: `lib/modules/${name}.ko`, kind: 'file', data: bytes }) as const,
    ),
  ];
  return new Uint8Array(gzipSync(cpioArchive(entries), { level: 9 }));
}
