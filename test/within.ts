/** Test helpers: deadlines for promises, and skips that count as failures on CI. */
import type { Test } from 'uvu';

/** Rejects if `work` has not settled within `ms`. uvu has no time-outs of its own. */
export async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not done within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/** Polls `check` until it returns something truthy; the error names what was awaited. */
export async function until<T>(
  ms: number,
  what: string,
  check: () => T | Promise<T>,
): Promise<NonNullable<T>> {
  const endAt = Date.now() + ms;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (Date.now() > endAt) throw new Error(`${what}: not so within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Registers `run` if `missing` is empty, else skips it and says why; under CI=true a skip fails.
 */
export function testIf(
  suite: Test,
  name: string,
  missing: string,
  run: () => void | Promise<void>,
): void {
  if (missing === '') {
    suite(name, run);
    return;
  }
  if (process.env['CI'] === 'true') {
    process.stdout.write(`SKIP ${name}: ${missing}\n`);
    suite(name, () => {
      throw new Error(`must not be skipped on CI: ${missing}`);
    });
  } else {
    skip(suite, name, missing);
  }
}

/** Skips, on CI too: for what no script can install. */
export function skip(suite: Test, name: string, missing: string): void {
  process.stdout.write(`SKIP ${name}: ${missing}\n`);
  suite.skip(name, () => {});
}
