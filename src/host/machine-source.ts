/**
 * Where a VM process gets its machine from: the VM's file on its first host, the owner's offer on
 * a standby. Both give the same description, so that both hosts make the same machine.
 */
import { readFile } from 'node:fs/promises';
import { builtinKernel } from '../guest/builtin.js';
import type { Machine, MachineSpec } from '../machine/machine.js';
import type { Accelerator } from '../machine/qemu/qemu-args.js';
import { QemuChooser, type QemuChoice } from '../machine/qemu/qemu-choice.js';
import type { QemuOptions } from '../machine/qemu/qemu-machine.js';
import { V86Machine } from '../machine/v86/v86-machine.js';
import { FileStore, sha256 } from './file-store.js';
import { diskSpecs, settledDisks } from './local-disks.js';
import type { VmConfig } from './vm-config.js';
import { VmProcessError } from './vm-process-error.js';
import type { HostIdentity } from './vm-protocol.js';

export interface VmDescription {
  readonly config: VmConfig;
  /** `null`: it boots from a disk. Disks go by path: each host has its own. */
  readonly kernelSha256: string | null;
  readonly initrdSha256: string | null;
  readonly nics: VmConfig['nics'];
  readonly epochMs: number | null;
  /** Of a QEMU machine: as its first host chose it, for the devices differ. */
  readonly accelerator: Accelerator | null;
  /** One capture in so many is checked against all of memory, on whichever host; 0: none. */
  readonly auditEvery: number;
}

export interface OfferContent {
  readonly specJson: string;
  readonly files: { name: string; sha256: string; bytes: number }[];
  readonly contents: Uint8Array[];
}

export class MachineSource {
  private readonly store: FileStore;
  private readonly auditEvery: number;
  private readonly host: Pick<HostIdentity, 'stateDir' | 'accelerator'>;
  private readonly qemu: QemuChooser;
  private choice: QemuChoice | null = null;
  private described: VmDescription | null = null;
  private kernel: Uint8Array | null = null;
  private initrd: Uint8Array | null = null;

  constructor(store: FileStore, host: MachineSource['host'], auditEvery: number) {
    this.store = store;
    this.host = host;
    this.qemu = new QemuChooser(builtinKernel, host.stateDir);
    this.auditEvery = auditEvery;
  }

  get description(): VmDescription {
    if (!this.described) throw new VmProcessError('NO_DESCRIPTION', 'the VM is not described yet');
    return this.described;
  }

  get known(): VmConfig | null {
    return this.described?.config ?? null;
  }

  /** `config.engine` has been chosen. */
  async fromConfig(config: VmConfig): Promise<void> {
    const { kernel, initrd } = config.boot;
    const disks = await settledDisks(config.disks);
    this.kernel = kernel === 'builtin' ? builtinKernel() : await contentOf(kernel);
    this.initrd = await contentOf(initrd);
    this.choice = config.engine === 'qemu' ? await this.qemu.choose(this.host.accelerator) : null;
    this.describe({ ...config, disks }, this.choice?.accelerator ?? null, this.auditEvery);
    for (const bytes of this.bootFiles()) await this.store.put(bytes);
  }

  /** A person's word, or that it is over; `describe` comes before. */
  allowUnsafeDisks(unsafeDisks: boolean): void {
    const { config, ...others } = this.description;
    this.described = { ...others, config: { ...config, unsafeDisks } };
  }

  /** The files have been fetched into the store before. */
  async fromOffer(specJson: string): Promise<void> {
    const offered = JSON.parse(specJson) as VmDescription;
    this.choice = offered.accelerator ? await this.qemu.choose(offered.accelerator) : null;
    await settledDisks(offered.config.disks);
    this.kernel = await this.stored(offered.kernelSha256);
    this.initrd = await this.stored(offered.initrdSha256);
    this.describe(offered.config, offered.accelerator, offered.auditEvery);
  }

  offer(): OfferContent {
    const contents = this.bootFiles();
    const files = contents.map((bytes, index) => ({
      name: index === 0 ? 'kernel' : 'initrd',
      sha256: sha256(bytes),
      bytes: bytes.length,
    }));
    return { specJson: JSON.stringify(this.description), files, contents };
  }

  create(): Promise<Machine> {
    const { config, auditEvery } = this.description;
    const spec = {
      memoryBytes: config.memoryBytes,
      kernel: this.kernel,
      initrd: this.initrd,
      cmdline: config.boot.cmdline,
      nics: config.nics,
      disks: diskSpecs(config),
    };
    if (this.choice) return createQemu(spec, { ...this.choice, auditEvery });
    return V86Machine.create(spec, { auditEvery });
  }

  private describe(config: VmConfig, accelerator: Accelerator | null, auditEvery: number): void {
    this.described = {
      config,
      kernelSha256: this.kernel ? sha256(this.kernel) : null,
      initrdSha256: this.initrd ? sha256(this.initrd) : null,
      nics: config.nics,
      epochMs: config.epochMs,
      accelerator,
      auditEvery,
    };
  }

  private bootFiles(): Uint8Array[] {
    return [this.kernel, this.initrd].filter((bytes) => bytes !== null);
  }

  private async stored(digest: string | null): Promise<Uint8Array | null> {
    if (digest === null) return null;
    const bytes = await this.store.get(digest);
    if (!bytes) throw new VmProcessError('FILE_MISSING', `boot file ${digest} is not here`);
    return bytes;
  }
}

const contentOf = async (path: string | null): Promise<Uint8Array | null> =>
  path === null ? null : readFile(path);

/** Loaded when it is needed: no other machine depends on what only Linux has. */
async function createQemu(spec: MachineSpec, options: QemuOptions): Promise<Machine> {
  const { QemuMachine } = await import('../machine/qemu/qemu-machine.js');
  return QemuMachine.create(spec, options);
}
