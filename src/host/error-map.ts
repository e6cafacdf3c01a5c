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
  BAD_ADDRESS: { exit: Exit.usage, status: 400 },
  NO_SUCH_VM: { exit: Exit.notFound, status: 404 },
  NO_DAEMON: { exit: Exit.notFound, status: 503 },
  VM_ENDED: { exit: Exit.notFound, status: 410 },
  ALREADY_RUNNING: { exit: Exit.refused, status: 409 },
  NAME_TAKEN: { exit: Exit.refused, status: 409 },
  UNSAFE_DISKS: { exit: Exit.refused, status: 409 },
  NO_ROOM: { exit: Exit.refused, status: 507 },
  REFUSED: { exit: Exit.refused, status: 409 },
  NOT_BOOTED: { exit: Exit.refused, status: 409 },
  NOT_OWNER: { exit: Exit.refused, status: 409 },
  STATE_DIR_IN_USE: { exit: Exit.refused, status: 409 },
  STATE_DIR_OPEN: { exit: Exit.refused, status: 403 },
  INSECURE: { exit: Exit.refused, status: 403 },
  NO_SUCH_HOST: { exit: Exit.notFound, status: 404 },
  ...refusals(),
  BUSY: { exit: Exit.refused, status: 503 },
  ...failures(),
  NOT_PROTECTED: { exit: Exit.notProtected, status: 409 },
  TIMEOUT: { exit: Exit.timedOut, status: 504 },
};

/** Who is not who they should be, or may not do what they ask for. */
function refusals(): Record<string, { exit: number; status: number }> {
  const codes = [
    ...['NOT_PAIRED', 'STRANGER', 'PLAIN_REFUSED', 'NOT_YOURS', 'STALE', 'NO_TICKET'],
    ...['BAD_TOKEN', 'TOKEN_USED', 'TOKEN_EXPIRED', 'BAD_IDENTITY', 'BAD_CERTIFICATE'],
    ...['EXPIRED', 'NO_CERTIFICATE'],
  ];
  return Object.fromEntries(codes.map((code) => [code, { exit: Exit.refused, status: 403 }]));
}

/** What a caller can only report. */
function failures(): Record<string, { exit: number; status: number }> {
  const codes = [
    ...['BAD_STATE', 'LISTEN_FAILED', 'INTERNAL', 'CORE_BUG', 'MACHINE_FAILED', 'CAPTURE_FAILED'],
    ...['QEMU_MISSING', 'QEMU_TOO_OLD', 'QEMU_START', 'QEMU_ENDED', 'QEMU_STREAM', 'QEMU_MIGRATE'],
    ...['QMP_TIMEOUT', 'QMP_CLOSED', 'QMP_ERROR', 'QMP_PROTOCOL'],
    ...['NO_DESCRIPTION', 'FILE_MISSING', 'BAD_OFFER', 'OFFER_TIMEOUT', 'OFFER_FAILED'],
    ...['BAD_DISK', 'DISK_FOLDER', 'DISK_LOCKED'],
    ...['OFFER_REFUSED', 'NO_ENGINE', 'NO_BRIDGE', 'TAP_FAILED', 'PASST_MISSING'],
    ...['LINK_CLOSED', 'DIAL_TIMEOUT', 'DIAL_FAILED', 'NOTE_NOT_SAVED', 'BAD_LINE', 'BAD_UUID'],
    ...['TLS_FAILED', 'TLS_TIMEOUT', 'LINE_CUT', 'LINE_TIMEOUT'],
    ...['BAD_RECORD', 'BAD_PROPOSAL', 'TOO_MANY_RECORDS', 'TOO_MANY_HOSTS', 'ARBITER_FAULT'],
    ...['KEPT_ASIDE'],
  ];
  return Object.fromEntries(codes.map((code) => [code, { exit: Exit.failed, status: 500 }]));
}

/** The codes that have a place in the map; any other counts as a failure. */
export const mappedCodes = (): string[] => Object.keys(BY_CODE);

export function exitCodeOf(code: string): number {
  return BY_CODE[code]?.exit ?? Exit.failed;
}

export function httpStatusOf(code: string): number {
  return BY_CODE[code]?.status ?? 500;
}
