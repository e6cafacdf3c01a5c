/**
 * Builds a small Linux guest out of Debian's i386 packages: its newest 32-bit kernel and busybox.
 * apt works in folders of its own, with the system's sources and keys, so that neither the system's
 * package lists nor its architectures change, and needs no privileges.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { collectModules } from './kernel-modules.js';
import { linuxInitramfs } from './linux-initramfs.js';

export class LinuxBuildError extends Error {
  readonly code = 'linux-build';

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'LinuxBuildError';
  }
}

export interface LinuxBuildOptions {
  readonly outDir: string;
  readonly log: (line: string) => void;
}

export interface LinuxGuest {
  /** Paths of the files built. */
  readonly kernel: string;
  readonly initrd: string;
}

/**
 * What a VM's `boot.cmdline` should start with; `ip=ADDRESS/LENGTH` and `gw=ADDRESS` may follow.
 * Without its ciphers' self-tests the kernel boots in half the time.
 */
export const LINUX_CMDLINE =
  'console=ttyS0 quiet tsc=reliable acpi=off mce=off mitigations=off nokaslr ' +
  'random.trust_cpu=on cryptomgr.notests';

/** NICs of both engines; the disks of both. */
const MODULES = ['ne2k-pci', 'virtio_pci', 'virtio_net', 'virtio_blk', 'ata_piix', 'sd_mod'];
const META_PACKAGE = 'linux-image-686';
const COMMAND_DEADLINE_MS = 300_000;
const OUTPUT_CHARS_MAX = 1 << 20;
const TAIL_CHARS = 2_000;

interface Ran {
  exitCode: number | null;
  output: string;
}

function run(command: string, args: readonly string[], cwd: string): Promise<Ran> {
  return new Promise((settle, reject) => {
    const env = { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' };
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    const child = spawn(command, args, { cwd, env, stdio: [...stdio] });
    const timer = setTimeout(() => child.kill('SIGKILL'), COMMAND_DEADLINE_MS);
    let output = '';
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-OUTPUT_CHARS_MAX);
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    child.on('error', (cause: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      const missing = cause.code === 'ENOENT';
      const hint = `${command} is not on this system: Linux is built from Debian packages`;
      const failed = `${command} did not start: ${cause.message}`;
      reject(new LinuxBuildError(missing ? hint : failed, { cause }));
    });
    child.on('close', (exitCode) => {
      clearTimeout(timer);
      settle({ exitCode, output });
    });
  });
}

function aptConfig(folder: string): string {
  for (const path of ['state/lists/partial', 'cache/archives/partial', 'packages', 'unpacked']) {
    mkdirSync(join(folder, path), { recursive: true });
  }
  writeFileSync(join(folder, 'status'), '');
  const hooks = ['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success', 'Post-Invoke-Stats'];
  const lines = [
    '#clear APT::Architectures;',
    ...hooks.map((hook) => `#clear APT::Update::${hook};`),
    '#clear Acquire::IndexTargets::deb-src;',
    'APT::Architecture "i386";',
    'APT::Architectures { "i386"; };',
    'APT::Sandbox::User "root";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    `Dir::State "${folder}/state";`,
    `Dir::State::status "${folder}/status";`,
    `Dir::Cache "${folder}/cache";`,
  ];
  const path = join(folder, 'apt.conf');
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}

function tail(output: string): string {
  return output.trim().slice(-TAIL_CHARS);
}

/** Fetches kernel and busybox into `folder`/packages. */
async function fetchPackages(folder: string, log: LinuxBuildOptions['log']): Promise<void> {
  const config = ['-c', aptConfig(folder)];
  log('reading the package lists of Debian for i386');
  // Fails as well if a source without i386 packages does; what matters is found out below.
  const update = await run('apt-get', [...config, '-q', 'update'], folder);
  const depends = await run('apt-cache', [...config, 'depends', META_PACKAGE], folder);
  const kernel = /Depends: (linux-image-\d\S*-686)$/m.exec(depends.output)?.[1];
  if (kernel === undefined) {
    const why = `this system's apt sources offer no ${META_PACKAGE} for i386 (Debian has it)`;
    throw new LinuxBuildError(`${why}; apt-get update said:\n${tail(update.output)}`);
  }
  log(`fetching ${kernel} and busybox-static`);
  const wanted = ['-q', 'download', kernel, 'busybox-static'];
  const download = await run('apt-get', [...config, ...wanted], join(folder, 'packages'));
  if (download.exitCode !== 0)
    throw new LinuxBuildError(`apt-get download failed:\n${tail(download.output)}`);
}

async function unpack(folder: string, log: LinuxBuildOptions['log']): Promise<string> {
  log('unpacking');
  const unpacked = join(folder, 'unpacked');
  for (const name of readdirSync(join(folder, 'packages')).sort()) {
    const deb = join(folder, 'packages', name);
    const { exitCode, output } = await run('dpkg-deb', ['-x', deb, unpacked], folder);
    if (exitCode !== 0) throw new LinuxBuildError(`dpkg-deb -x ${name} failed:\n${tail(output)}`);
  }
  return unpacked;
}

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

/** Builds `vmlinuz` and `initrd.img` in `outDir`. */
export async function buildLinux({ outDir, log }: LinuxBuildOptions): Promise<LinuxGuest> {
  const out = resolve(outDir);
  mkdirSync(out, { recursive: true });
  const folder = mkdtempSync(join(out, '.build-'));
  try {
    await fetchPackages(folder, log);
    const root = await unpack(folder, log);
    const modules = collectModules(findFolder(root, 'lib/modules', /-686$/), MODULES);
    const busybox = readFileSync(findFolder(root, 'bin', /^busybox$/));
    const guest = { kernel: join(out, 'vmlinuz'), initrd: join(out, 'initrd.img') };
    writeFileSync(guest.kernel, readFileSync(findFolder(root, 'boot', /^vmlinuz-.*-686$/)));
    const initrd = linuxInitramfs(busybox, modules);
    writeFileSync(guest.initrd, initrd);
    log(`${guest.kernel}, ${guest.initrd} (${modules.length} modules, ${initrd.length} bytes)`);
    return guest;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
