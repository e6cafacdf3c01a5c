/**
 * Reads a YAML file against a schema. A wrong one gets one clear line for each fault, all of them
 * at once, each with its line and column.
 */
import * as v from 'valibot';
import { isMap, LineCounter, parseDocument, type Document } from 'yaml';
import { MirrorError } from '../core/errors.js';

export class ConfigError extends MirrorError {
  constructor(faults: readonly string[]) {
    super('BAD_CONFIG', faults.join('\n'));
  }
}

/** What is wrong, and with which key. */
export interface Fault {
  readonly keys: readonly (string | number)[];
  readonly text: string;
}

/** `path` is where the text came from, for the messages. */
export function readYaml<T>(schema: v.GenericSchema<unknown, T>, text: string, path: string): T {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${path}:${line}:${col}`;
  };
  if (document.errors.length > 0)
    throw new ConfigError(
      document.errors.map((error) => `${at(error.pos[0])}: ${error.message.split('\n')[0]}`),
    );
  if (!isMap(document.contents))
    throw new ConfigError([`${path}:1:1: file: must hold keys and values`]);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 20 });
  } catch (error) {
    throw new ConfigError([`${path}:1:1: ${error instanceof Error ? error.message : 'bad'}`]);
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  const faults = parsed.issues.map((issue) => fault(issue, document, at));
  throw new ConfigError([...new Set(faults)]);
}

function fault(
  issue: v.BaseIssue<unknown>,
  document: Document,
  at: (offset: number) => string,
): string {
  const keys = (issue.path ?? []).map((item) => item.key as string | number);
  return `${at(offsetOf(document, keys))}: ${keys.join('.') || 'file'}: ${whatIsWrong(issue)}`;
}

function whatIsWrong(issue: v.BaseIssue<unknown>): string {
  const { type, expected, received } = issue;
  if (type === 'strict_object' && expected === 'never') return 'is not a known key';
  if (type === 'strict_object' && received === 'undefined') return 'is missing';
  if (type === 'strict_object') return 'must hold keys and values';
  const own = !issue.message.startsWith('Invalid ');
  return own ? issue.message : `must be ${expected ?? 'something else'}, not ${received}`;
}

/** Where the deepest part of `keys` that is there begins. */
function offsetOf(document: Document, keys: (string | number)[]): number {
  for (let depth = keys.length; depth > 0; depth -= 1) {
    const parent = depth === 1 ? document.contents : document.getIn(keys.slice(0, depth - 1), true);
    const key = keys[depth - 1];
    if (isMap(parent)) {
      const pair = parent.items.find((item) => String(item.key) === String(key));
      const range = (pair?.key as { range?: [number, number, number] } | undefined)?.range;
      if (range) return range[0];
    }
    const node = document.getIn(keys.slice(0, depth), true) as { range?: number[] } | undefined;
    if (node?.range) return node.range[0];
  }
  return 0;
}
