/** What goes wrong with QEMU: `code` says whether it is missing, too old, gone, or refused. */
import { MirrorError } from '../../core/errors.js';

export class QemuError extends MirrorError {}
