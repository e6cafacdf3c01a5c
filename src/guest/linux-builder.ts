/**
 * Builds a small Linux guest out of Debian's packages: its newest kernel and busybox, and programs
 * of other packages. For i386 it runs in both engines, for amd64 in QEMU.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { AptFolder, type Architecture } from './apt-folder.js';
import { collectModules } from './kernel-modules.js';
import { LinuxBuildError } from './linux-build-error.js';
import { linuxInitramfs } from './linux-initramfs.js';
import { collectPrograms, type GuestFile } from './programs.js';

export interface LinuxBuildOptions {
  readonly outDir: string;
  readonly log: (line: string) => void;
  readonly architecture?: Architecture;
  /** Debian packages whose programs go to `/bin`, with the libraries they need; amd64 only. */
  readonly packages?: readonly string[];
  /** Path of a script that runs beside the shell. */
  readonly start?: string | null;
}

export interface LinuxGuest {
  /** Paths of the files built. */
  readonly kernel: string;
  readonly initrd: string;
  /** What a VM's `boot.cmdline` should start with. */
  readonly cmdline: string;
}

/**
 * What a VM's `boot.cmdline` should start with; `ip=ADDRESS/LENGTH`, `gw=ADDRESS` and
 * `serve=http,echo` may follow. Without its ciphers' self-tests the kernel boots in half the time.
 */
export const LINUX_CMDLINE =
  'console=ttyS0 quiet tsc=reliable acpi=off mce=off mitigations=off nokaslr ' +
  'random.trust_cpu=on cryptomgr.notests';

/** For amd64: with ACPI, which switches the machine off. */
export const LINUX_AMD64_CMDLINE =
  'console=ttyS0 quiet mitigations=off nokaslr random.trust_cpu=on cryptomgr.notests ' +
  'no_timer_check';

interface Flavour {
  readonly meta: string;
  /** The kernel package, in what `meta` depends on. */
  readonly kernelPackage: RegExp;
  readonly suffix: RegExp;
  readonly cmdline: string;
  readonly modules: readonly string[];
}

/** NICs of both engines; the disks of both. */
const DEVICES = ['ne2k-pci', 'virtio_pci', 'virtio_net', 'virtio_blk', 'ata_piix', 'sd_mod'];
/** ext4 asks for its checksums by name only. */
const FILE_SYSTEM = ['crc32c_generic', 'ext4'];

const FLAVOURS: Record<Architecture, Flavour> = {
  i386: {
    meta: 'linux-image-686',
    kernelPackage: /Depends: (linux-image-\d\S*-686)$/m,
    suffix: /-686$/,
    cmdline: LINUX_CMDLINE,
    modules: DEVICES,
  },
  amd64: {
    meta: 'linux-image-cloud-amd64',
    kernelPackage: /Depends: (linux-image-\d\S*-cloud-amd64)$/m,
    suffix: /-cloud-amd64$/,
    cmdline: LINUX_AMD64_CMDLINE,
    modules: [...DEVICES, ...FILE_SYSTEM],
  },
};

/** Where the packages put a file: `/bin` and `/lib` may be below `/usr`. */
function findFolder(root: string, path: string, pattern: RegExp): string {
  for (const prefix of ['', 'usr']) {
    const folder = join(root, prefix, path);
    try {
      const name = readdirSync(folder).find((entry) => pattern.test(entry));
      if (name !== undefined) return join(folder, name);
    } catch {
      // not there: the next prefix
    }
  }
  throw new LinuxBuildError(`the packages hold no ${path} matching ${pattern.source}`);
}

async function programsOf(apt: AptFolder, packages: readonly string[]): Promise<GuestFile[]> {
  if (packages.length === 0) return [];
  const root = await apt.unpackWithDependencies(packages);
  const paths = await Promise.all(packages.map((name) => apt.programsOf(name)));
  return collectPrograms(root, paths.flat());
}

/** Builds `vmlinuz` and `initrd.img` in `outDir`. */
export async function buildLinux(options: LinuxBuildOptions): Promise<LinuxGuest> {
  const { outDir, log, architecture = 'i386', packages = [], start = null } = options;
  const { meta, kernelPackage, suffix, cmdline, modules: wanted } = FLAVOURS[architecture];
  if (packages.length > 0 && architecture !== 'amd64')
    throw new LinuxBuildError('programs of packages go into an amd64 guest only');
  const out = resolve(outDir);
  mkdirSync(out, { recursive: true });
  const folder = mkdtempSync(join(out, '.build-'));
  try {
    const apt = new AptFolder(folder, architecture);
    log(`reading the package lists of Debian for ${architecture}`);
    await apt.update();
    const kernel = await apt.dependency(meta, kernelPackage);
    log(`fetching ${[kernel, 'busybox-static', ...packages].join(', ')}`);
    const root = await apt.unpack([kernel, 'busybox-static']);
    const programs = await programsOf(apt, packages);
    const modules = collectModules(findFolder(root, 'lib/modules', suffix), wanted);
    const busybox = readFileSync(findFolder(root, 'bin', /^busybox$/));
    const guest = { kernel: join(out, 'vmlinuz'), initrd: join(out, 'initrd.img'), cmdline };
    const image = new RegExp(`^vmlinuz-.*${suffix.source}`);
    writeFileSync(guest.kernel, readFileSync(findFolder(root, 'boot', image)));
    const script = start === null ? null : readFileSync(start);
    const initrd = linuxInitramfs({ busybox, modules, programs, start: script });
    writeFileSync(guest.initrd, initrd);
    log(`${guest.kernel}, ${guest.initrd} (${modules.length} modules, ${initrd.length} bytes)`);
    return guest;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
