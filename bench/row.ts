/** One line of the bench: a figure, and what it is to be measured against. */

export interface Row {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What the same run did for comparison, if there is such a thing. */
  readonly reference?: string;
  /** Named in the issue that asked for it: `value` must not be above, or below. */
  readonly target?: { readonly atMost: number } | { readonly atLeast: number };
}

export function isMet({ value, target }: Row): boolean {
  if (!target) return true;
  return 'atMost' in target ? value <= target.atMost : value >= target.atLeast;
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export function formatted(row: Row): string {
  const { name, value, unit, reference, target } = row;
  const bound =
    target && ('atMost' in target ? `at most ${target.atMost}` : `at least ${target.atLeast}`);
  const verdict = bound ? `  [${bound}: ${isMet(row) ? 'met' : 'MISSED'}]` : '';
  const beside = reference ? `  (${reference})` : '';
  return `${name.padEnd(52)}${value.toFixed(3).padStart(10)} ${unit}${beside}${verdict}`;
}
