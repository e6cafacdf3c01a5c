/** The root of every error that Mirror throws on purpose: a stable `code` for programs. */

export class MirrorError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}
