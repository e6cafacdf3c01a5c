/** What can go wrong in a VM process, apart from what the core decides. */
import { MirrorError } from '../core/errors.js';

export class VmProcessError extends MirrorError {}

/** Any error as it crosses a process boundary. */
export function describe(error: unknown): { code: string; message: string } {
  if (error instanceof MirrorError) return { code: error.code, message: error.message };
  return { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) };
}
