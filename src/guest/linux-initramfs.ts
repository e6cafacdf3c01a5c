/** The initramfs of the Linux guest: busybox, the drivers of both engines' devices, and an init. */
import { gzipSync } from 'node:zlib';
import type { CpioEntry } from './cpio.js';
import { cpioArchive } from './cpio.js';
import type { KernelModule } from './kernel-modules.js';
import type { GuestFile } from './programs.js';

/**
 * `ip=ADDRESS/LENGTH` and `gw=ADDRESS` of the kernel's command line set up eth0; `ip1=` the second
 * NIC, and so on; `serve=http,echo` starts servers; `/etc/start` runs beside the shell.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root PS1='mirror# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module.ko 2>/dev/null; done
hostname mirror
ip link set lo up
for word in $(cat /proc/cmdline); do
  case $word in
    ip=*) ip=\${word#ip=} ;;
    ip[1-7]=*) more="$more \${word#ip}" ;;
    gw=*) gw=\${word#gw=} ;;
    serve=*) serve=\${word#serve=} ;;
  esac
done
if [ -e /sys/class/net/eth0 ]; then
  [ -n "$ip" ] && ip addr add $ip dev eth0
  ip link set eth0 up
  [ -n "$gw" ] && ip route add default via $gw
fi
for other in $more; do
  ip addr add \${other#*=} dev eth\${other%%=*}
  ip link set eth\${other%%=*} up
done
grep -q QEMU /sys/class/dmi/id/sys_vendor 2>/dev/null && guest-clock &
for server in $(echo $serve | tr , ' '); do
  case $server in
    http) mkdir -p /srv && httpd -h /srv ;;
    echo) nc -ll -p 7 -e cat >/dev/null 2>&1 & ;;
  esac
done
[ -x /etc/start ] && /etc/start >/tmp/start.log 2>&1 &
echo "mirror linux up $(uname -r) ip=$ip"
while :; do setsid cttyhack sh; done
`;

/**
 * The pauses of epochs are lost to the clocks of a QEMU machine, but for its real-time clock, which
 * shows the host's time. This has the kernel tick faster by as much as is lost: every few seconds
 * it waits for the real-time clock's next second and looks how far the system's clock is `behind`.
 * A tick (10,000 us by rights, a tenth more or less at most; 1 us of it is 100 us a second) is made
 * to win half of that back until the next look. If it was off from what was `foreseen` then, the
 * `base` was wrong, and takes half the difference. More than 0.3 s are stepped. What epochs take
 * beyond a tenth only steps give back: with the base at its limit it looks every second, and steps
 * a tenth of a second.
 */
const GUEST_CLOCK = `#!/bin/busybox sh
export PATH=/bin
rtc=/sys/class/rtc/rtc0/since_epoch
now() {
  adjtimex | awk '/time.tv_sec:/{s=$NF} /time.tv_usec:/{u=$NF} END{printf "%d%06d", s, u}'
}
limit() {
  if [ $1 -gt 11000 ]; then echo 11000; elif [ $1 -lt 9000 ]; then echo 9000; else echo $1; fi
}
behind=0
base=10000
tick=10000
foreseen=
span=5
most=300000
while :; do
  sleep $((span - 1))
  us=$(now)
  rest=$((920000 - (us + behind) % 1000000))
  [ $span -gt 1 ] && [ $rest -gt 0 ] && usleep $rest
  read before < $rtc
  while read second < $rtc; [ $second = $before ]; do usleep 5000; done
  us=$(now)
  behind=$((second * 1000000 - us))
  echo "behind $behind us, tick $tick us" > /tmp/guest-clock
  [ -n "$foreseen" ] && base=$(limit $((base + (behind - foreseen) / (span * 200))))
  if [ $behind -gt $most ] || [ $behind -lt -$most ]; then
    date -s @$second >/dev/null
    behind=0
  fi
  span=5
  most=300000
  if [ $base = 11000 ]; then
    span=1
    most=100000
  fi
  tick=$(limit $((base + behind / (span * 200))))
  adjtimex -t $tick >/dev/null
  foreseen=$((behind - (tick - base) * span * 100))
done
`;

const FOLDERS = [
  ...['bin', 'dev', 'etc', 'lib', 'lib/modules', 'lib/x86_64-linux-gnu', 'lib64', 'mnt', 'proc'],
  ...['root', 'srv', 'sys', 'tmp', 'var'],
];

export interface InitramfsParts {
  readonly busybox: Uint8Array;
  readonly modules: readonly KernelModule[];
  readonly programs: readonly GuestFile[];
  /** Becomes `/etc/start`. */
  readonly start: Uint8Array | null;
}

const file = (path: string, data: Uint8Array | string, mode = 0o644): CpioEntry => ({
  ...{ path, kind: 'file', mode, data },
});

export function linuxInitramfs({ busybox, modules, programs, start }: InitramfsParts): Uint8Array {
  const order = `${modules.map(({ name }) => name).join('\n')}\n`;
  const entries: CpioEntry[] = [
    ...FOLDERS.map((path) => ({ path, kind: 'folder' }) as const),
    { path: 'dev/console', kind: 'device', major: 5, minor: 1 },
    { path: 'dev/null', kind: 'device', mode: 0o666, major: 1, minor: 3 },
    file('bin/busybox', busybox, 0o755),
    file('bin/guest-clock', GUEST_CLOCK, 0o755),
    file('init', INIT, 0o755),
    file('lib/modules/order', order),
    ...modules.map(({ name, bytes }) => file(`lib/modules/${name}.ko`, bytes)),
    ...programs.map(({ path, bytes }) => file(path, bytes, 0o755)),
    ...(start ? [file('etc/start', start, 0o755)] : []),
  ];
  return new Uint8Array(gzipSync(cpioArchive(entries), { level: 9 }));
}
