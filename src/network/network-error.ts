/** What can go wrong where a NIC is plugged in. */
import { MirrorError } from '../core/errors.js';

export class NetworkError extends MirrorError {}
