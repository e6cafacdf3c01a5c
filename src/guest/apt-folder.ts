/**
 * apt in folders of its own, with the system's sources and keys: neither the system's package lists
 * nor its architectures change, and no privileges are needed.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LinuxBuildError } from './linux-build-error.js';

export type Architecture = 'i386' | 'amd64';

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

const tail = (output: string): string => output.trim().slice(-TAIL_CHARS);

function aptConfig(folder: string, architecture: Architecture): string {
  for (const path of ['state/lists/partial', 'cache/archives/partial', 'packages', 'unpacked']) {
    mkdirSync(join(folder, path), { recursive: true });
  }
  writeFileSync(join(folder, 'status'), '');
  const hooks = ['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success', 'Post-Invoke-Stats'];
  const lines = [
    '#clear APT::Architectures;',
    ...hooks.map((hook) => `#clear APT::Update::${hook};`),
    '#clear Acquire::IndexTargets::deb-src;',
    `APT::Architecture "${architecture}";`,
    `APT::Architectures { "${architecture}"; };`,
    'APT::Sandbox::User "root";',
    'APT::Install-Recommends "false";',
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

export class AptFolder {
  private readonly folder: string;
  private readonly config: readonly string[];
  private readonly architecture: Architecture;
  private updated = '';

  constructor(folder: string, architecture: Architecture) {
    this.folder = folder;
    this.architecture = architecture;
    this.config = ['-c', aptConfig(folder, architecture)];
  }

  /** Fails as well if one source has no such packages: what matters is found out later. */
  async update(): Promise<void> {
    this.updated = (await run('apt-get', [...this.config, '-q', 'update'], this.folder)).output;
  }

  /** The first package matching `pattern` that `meta` depends on. */
  async dependency(meta: string, pattern: RegExp): Promise<string> {
    const { output } = await run('apt-cache', [...this.config, 'depends', meta], this.folder);
    const found = pattern.exec(output)?.[1];
    if (found !== undefined) return found;
    const why = `this system's apt sources offer no ${meta} for ${this.architecture}`;
    const said = `apt-get update said:\n${tail(this.updated)}`;
    throw new LinuxBuildError(`${why} (Debian has it); ${said}`);
  }

  /** Fetches the packages alone and unpacks them; returns the folder they are in, together. */
  async unpack(packages: readonly string[]): Promise<string> {
    await this.fetch(['-q', 'download', ...packages], 'packages');
    return this.unpackAll('packages');
  }

  /** The same, with all that they depend on. */
  async unpackWithDependencies(packages: readonly string[]): Promise<string> {
    await this.fetch(['-q', '-y', '--download-only', 'install', ...packages], 'packages');
    return this.unpackAll('cache/archives');
  }

  private async fetch(args: readonly string[], into: string): Promise<void> {
    const ran = await run('apt-get', [...this.config, ...args], join(this.folder, into));
    if (ran.exitCode !== 0)
      throw new LinuxBuildError(`apt-get ${args.join(' ')} failed:\n${tail(ran.output)}`);
  }

  private async unpackAll(from: string): Promise<string> {
    const unpacked = join(this.folder, 'unpacked');
    const names = readdirSync(join(this.folder, from)).filter((name) => name.endsWith('.deb'));
    for (const name of names.sort()) {
      const ran = await run('dpkg-deb', ['-x', join(this.folder, from, name), unpacked], unpacked);
      if (ran.exitCode !== 0)
        throw new LinuxBuildError(`dpkg-deb -x ${name} failed:\n${tail(ran.output)}`);
    }
    return unpacked;
  }

  /** Paths of a fetched package's programs, such as `usr/bin/redis-server`. */
  async programsOf(name: string): Promise<string[]> {
    const archives = join(this.folder, 'cache/archives');
    const archive = readdirSync(archives).find((file) => file.startsWith(`${name}_`));
    if (archive === undefined) throw new LinuxBuildError(`apt-get fetched no package ${name}`);
    const { output } = await run('dpkg-deb', ['-c', join(archives, archive)], this.folder);
    const paths = output.split('\n').map((line) => / \.\/(\S+)( -> .*)?$/.exec(line)?.[1] ?? '');
    return paths.filter((path) => /^(usr\/)?s?bin\/[^/]+$/.test(path));
  }
}
