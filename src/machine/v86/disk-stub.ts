/**
 * The disk of a machine without one: v86's PCI state cannot be restored unless an IDE drive is
 * present. It reads as zeros, forgets writes, and answers synchronously, so that nothing is in
 * flight at a boundary.
 */

const STUB_BYTES = 1 << 20;

export class DiskStub {
  readonly byteLength = STUB_BYTES;
  onload: ((event: object) => void) | undefined = undefined;
  onprogress: ((event: object) => void) | undefined = undefined;

  load(): void {
    this.onload?.({});
  }

  get(_offset: number, bytes: number, done: (data: Uint8Array) => void): void {
    done(new Uint8Array(bytes));
  }

  set(_offset: number, _data: Uint8Array, done: () => void): void {
    done();
  }

  get_and_cache(offset: number, bytes: number, done: (data: Uint8Array) => void): void {
    this.get(offset, bytes, done);
  }

  get_from_cache(_offset: number, bytes: number): Uint8Array {
    return new Uint8Array(bytes);
  }

  get_buffer(done: (buffer: ArrayBuffer | undefined) => void): void {
    done(undefined);
  }

  get_state(): number[] {
    return [STUB_BYTES];
  }

  set_state(): void {}
}
