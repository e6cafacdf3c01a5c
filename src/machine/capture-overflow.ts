/** Thrown by `Machine.capture` when the pages do not fit; the next capture has them still. */
import { MirrorError } from '../core/errors.js';

export class CaptureOverflow extends MirrorError {
  readonly pageCount: number;

  constructor(pageCount: number, capacity: number) {
    super('capture-overflow', `${pageCount} pages to capture, room for ${capacity}`);
    this.pageCount = pageCount;
  }
}
