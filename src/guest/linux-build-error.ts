/** Why a Linux guest could not be built, and what to do. */
export class LinuxBuildError extends Error {
  readonly code = 'linux-build';

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'LinuxBuildError';
  }
}
