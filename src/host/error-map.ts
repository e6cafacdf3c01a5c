/** The one map from error codes to exit codes and HTTP statuses. */

export const Exit = {
  done: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  notProtected: 5,
  timedOut: 124,
  interrupted: 130,
} as const;

const BY_CODE: Record<string, { exit: number; status: number }> = {
  USAGE: { exit: Exit.usage, status: 400 },
  BAD_CONFIG: { exit: Exit.usage, status: 400 },
  BAD_REQUEST: { exit: Exit.usage, status: 400 },
  NO_SUCH_VM: { exit: Exit.notFound, status: 404 },
  NO_DAEMON: { exit: Exit.notFound, status: 503 },
  VM_ENDED: { exit: Exit.notFound, status: 410 },
  ALREADY_RUNNING: { exit: Exit.refused, status: 409 },
  NAME_TAKEN: { exit: Exit.refused, status: 409 },
  REFUSED: { exit: Exit.refused, status: 409 },
  NOT_OWNER: { exit: Exit.refused, status: 409 },
  STATE_DIR_IN_USE: { exit: Exit.refused, status: 409 },
  BAD_ADDRESS: { exit: Exit.usage, status: 400 },
  INSECURE: { exit: Exit.refused, status: 403 },
  NOT_PROTECTED: { exit: Exit.notProtected, status: 409 },
  TIMEOUT: { exit: Exit.timedOut, status: 504 },
};

export function exitCodeOf(code: string): number {
  return BY_CODE[code]?.exit ?? Exit.failed;
}

export function httpStatusOf(code: string): number {
  return BY_CODE[code]?.status ?? 500;
}
