/** Thrown by `Machine.capture` when the pages do not fit; nothing was lost, the next capture has them. */
import { MirrorError } from '../core/errors.js';

export class CaptureOverflow extends MirrorError {
  readonly pageCount: number;

  constructor(pageCount: number, capacity: number) {
    super('capture-overflow', `${pageCount} pages to capture, room for ${capacity}`);
    this.pageCount = pageCount;
  }
}
