/** House rules, checked: layers, purity of the core, line and function lengths, dead files. */
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const root = fileURLToPath(new URL('../../', import.meta.url));
const COLUMNS_MAX = 100;
const FUNCTION_LINES_MAX = 70;

/** Layers, left to right: a folder may import those of a lower rank, and itself. */
const RANK: Record<string, number> = {
  guest: 0,
  core: 0,
  page: 1,
  wire: 1,
  gate: 1,
  disk: 1,
  network: 1,
  machine: 1,
  checkpoint: 2,
  replica: 2,
  pool: 3,
  drill: 4,
  host: 5,
  cli: 6,
};

/** Modules that start a process or a worker of their own: nobody imports them. */
const ENTRY_POINTS = [
  'src/index.ts',
  'src/cli/main.ts',
  'src/host/vm-process.ts',
  'src/checkpoint/encode-worker.ts',
  'src/machine/qemu/capture-worker.ts',
  'src/network/tap-worker.ts',
];

/** Modules that their own rank may import too: they belong to neither side. */
const SHARED = ['src/network/stream-framing.ts', 'src/network/own-folder.ts'];

const BANNED_IN_CORE: [string, RegExp][] = [
  ['clock', /\bDate\.now\b|\bnew Date\b|\bperformance\b|\bhrtime\b/],
  ['timer', /\bset(Timeout|Interval|Immediate)\b|\bqueueMicrotask\b/],
  ['randomness', /\bMath\.random\b|\brandomBytes\b|\brandomUUID\b|\bcrypto\b/],
  ['process', /\bprocess\.|\bglobalThis\b|\bBuffer\b/],
  ['asynchrony', /\basync\b|\bawait\b|\bPromise\b/],
];

interface SourceFile {
  path: string;
  text: string;
  tree: ts.SourceFile;
}

function sourceFiles(folder: string): SourceFile[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => {
      const text = readFileSync(join(root, folder, path), 'utf8');
      const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
      return { path: join(folder, path), text, tree };
    });
}

interface Import {
  target: string;
  typeOnly: boolean;
}

/** Relative imports, static, dynamic, and of workers by `new URL(..., import.meta.url)`. */
function importsOf(file: SourceFile): Import[] {
  const found: Import[] = [];
  const add = (specifier: string, typeOnly: boolean): void => {
    if (!specifier.startsWith('.')) return;
    const target = normalize(join(dirname(file.path), specifier)).replace(/\.js$/, '.ts');
    found.push({ target, typeOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      const specifier = node.moduleSpecifier;
      const typeOnly = ts.isImportDeclaration(node)
        ? node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
        : node.isTypeOnly;
      if (specifier && ts.isStringLiteral(specifier)) add(specifier.text, typeOnly);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments;
      if (argument && ts.isStringLiteral(argument)) add(argument.text, false);
    } else if (ts.isNewExpression(node) && node.expression.getText() === 'URL') {
      const argument = node.arguments?.[0];
      if (argument && ts.isStringLiteral(argument) && argument.text.endsWith('.js'))
        add(argument.text, false);
    }
    ts.forEachChild(node, visit);
  };
  visit(file.tree);
  return found;
}

const folderOf = (path: string): string => path.split('/')[1] ?? '';

function layerFaults(files: SourceFile[]): string[] {
  const faults: string[] = [];
  for (const file of files) {
    const from = folderOf(file.path);
    if (!(from in RANK)) {
      if (from !== 'index.ts') faults.push(`${file.path}: not in a folder of the house`);
      continue;
    }
    for (const { target, typeOnly } of importsOf(file)) {
      const to = folderOf(target);
      if (!target.startsWith('src/') || to === from) continue;
      const sameRank = RANK[to] === RANK[from];
      const shared = typeOnly || SHARED.includes(target);
      const allowed = RANK[to] < RANK[from] || (sameRank && shared);
      if (!allowed) faults.push(`${file.path}: may not import ${target}`);
    }
  }
  return faults;
}

function purityFaults(files: SourceFile[]): string[] {
  const faults: string[] = [];
  for (const file of files.filter((f) => f.path.startsWith('src/core/'))) {
    const code = file.text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '');
    for (const [what, pattern] of BANNED_IN_CORE) {
      if (pattern.test(code)) faults.push(`${file.path}: ${what} in the core`);
    }
    if (/from '(?!\.\/)/.test(code)) faults.push(`${file.path}: the core imports only itself`);
  }
  return faults;
}

function lengthFaults(files: SourceFile[]): string[] {
  const faults: string[] = [];
  for (const file of files) {
    file.text.split('\n').forEach((line, index) => {
      if (line.length > COLUMNS_MAX) faults.push(`${file.path}:${index + 1}: over 100 columns`);
    });
    const lineOf = (position: number): number =>
      file.tree.getLineAndCharacterOfPosition(position).line;
    const visit = (node: ts.Node): void => {
      if (ts.isFunctionLike(node) && 'body' in node && node.body) {
        const lines = lineOf(node.end) - lineOf(node.getStart()) + 1;
        if (lines > FUNCTION_LINES_MAX)
          faults.push(`${file.path}:${lineOf(node.getStart()) + 1}: function of ${lines} lines`);
      }
      ts.forEachChild(node, visit);
    };
    visit(file.tree);
  }
  return faults;
}

function deadFiles(files: SourceFile[]): string[] {
  const imported = new Set(files.flatMap((file) => importsOf(file).map((i) => i.target)));
  return files
    .map((file) => file.path)
    .filter((path) => path.startsWith('src/'))
    .filter((path) => !imported.has(path) && !ENTRY_POINTS.includes(path))
    .map((path) => `${path}: imported by nobody`);
}

const source = sourceFiles('src');
const everything = [...source, ...sourceFiles('test'), ...sourceFiles('bench')];
const tidy = suite('tidy');

tidy('imports point one way', () => {
  assert.equal(layerFaults(source), []);
});

tidy('the core is pure', () => {
  assert.equal(purityFaults(source), []);
});

tidy('lines fit 100 columns and functions fit a screen', () => {
  assert.equal(lengthFaults(everything), []);
});

tidy('no file is dead', () => {
  assert.equal(deadFiles(source), []);
});

tidy('every file says what it is for', () => {
  const silent = everything.filter((file) => !/^(#!.*\n)?\/\*\*/.test(file.text));
  assert.equal(
    silent.map((file) => file.path),
    [],
  );
});

tidy('the checks can fail', () => {
  const make = (path: string, text: string): SourceFile => ({
    path,
    text,
    tree: ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true),
  });
  const bad = make('src/core/bad.ts', "import { x } from '../host/x.js';\nDate.now();\n");
  assert.equal(layerFaults([bad]).length, 1);
  assert.equal(purityFaults([bad]).length, 2);
  const long = make('src/page/long.ts', `function f() {\n${'  x();\n'.repeat(80)}}\n`);
  assert.equal(lengthFaults([long]).length, 1);
  assert.equal(deadFiles([long]).length, 1);
});

tidy.run();
