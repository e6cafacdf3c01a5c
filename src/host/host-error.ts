/** What a daemon refuses or cannot do. */
import { MirrorError } from '../core/errors.js';

export class HostError extends MirrorError {}
