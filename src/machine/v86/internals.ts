/**
 * The parts of v86 0.5.462 that the machine reaches for and that its own typings leave out.
 * Whatever is used below is checked once, when a machine is created (`engine.ts`).
 */

/** A view into v86's memory; v86 wraps them so that they survive memory growth. */
export interface WasmView {
  readonly byteOffset: number;
  [index: number]: number;
}

export interface V86Nic {
  mac: Uint8Array;
  /** Only ne2k: its buffer starts with the MAC, every byte twice. */
  memory?: Uint8Array;
  /** Only ne2k: pages of its receive ring, and the next to be written and to be read. */
  pstart?: number;
  pstop?: number;
  curpg?: number;
  boundary?: number;
}

export interface V86Uart {
  input: number[];
  current_line: string;
  data_received(byte: number): void;
}

export interface V86Pci {
  isa_bridge_space8: Uint8Array;
  device_spaces: (Int32Array | undefined)[];
}

type PortWrite = (this: unknown, value: number) => void;

export interface V86Io {
  register_write(
    port: number,
    device: unknown,
    write8: PortWrite,
    write16?: PortWrite,
    write32?: PortWrite,
  ): void;
  port_read32(port: number): number;
  port_write8(port: number, value: number): void;
}

/** Values in a state tree: what `get_state` of v86's devices returns. */
export type StateValue =
  | number
  | string
  | boolean
  | null
  | undefined
  | ArrayBufferView
  | StateValue[]
  | StatefulDevice;

export interface StatefulDevice {
  get_state(): StateValue[];
}

export interface V86Cpu {
  readonly devices: {
    uart0: V86Uart;
    pci: V86Pci;
    net?: V86Nic;
    virtio_net?: V86Nic;
    [name: string]: unknown;
  };
  readonly io: V86Io;
  readonly wasm_memory: WebAssembly.Memory;
  readonly mem8: WasmView;
  readonly reg32: WasmView;
  readonly cr: WasmView;
  readonly protected_mode: WasmView;
  readonly flags: WasmView;
  readonly is_32: WasmView;
  readonly stack_size_32: WasmView;
  readonly segment_is_null: WasmView;
  readonly segment_offsets: WasmView;
  readonly segment_limits: WasmView;
  readonly sreg: WasmView;
  readonly instruction_pointer: WasmView;
  readonly instruction_counter: WasmView;
  readonly fpu_control_word: WasmView;
  /** `set_state` replaces these three instead of writing to them. */
  last_result: WasmView;
  fpu_status_word: WasmView;
  mxcsr: WasmView;

  stop_idling: () => void;
  reboot_internal: () => void;
  pack_memory: () => unknown;
  unpack_memory: () => void;
  /** Runs the guest for about 1 ms; returns how many ms it may sleep. */
  main_loop(): number;
  get_state(): StateValue[];
  set_state(state: StateValue[]): void;
  update_state_flags(): void;
  load_multiboot_option_rom(
    kernel: ArrayBuffer,
    initrd: ArrayBuffer | undefined,
    cmdline: string,
  ): unknown;
}

export interface V86Emulator {
  readonly v86: { readonly cpu: V86Cpu };
  readonly bus: { send(event: string, data: unknown): void };
  add_listener(event: string, listener: (data: never) => void): void;
  destroy(): Promise<void>;
}

/** Exports of v86's wasm module; the last one exists only in the patched build. */
export interface V86Exports {
  readonly memory: WebAssembly.Memory;
  v86_malloc(bytes: number): number;
  full_clear_tlb(): void;
  set_control_word(value: number): void;
  mirror_track?(map: number, ram: number, pages: number): void;
}
