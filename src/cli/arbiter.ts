/** `mirror arbiter init`: makes a folder on shared storage an arbiter. */
import { parseArbiter } from '../pool/arbiter.js';
import { FileArbiter } from '../pool/file-arbiter.js';
import { print, UsageError, type Command } from './command.js';

export const arbiterInit: Command = {
  name: 'arbiter init',
  args: 'file:/PATH',
  about: 'make an empty folder on storage that all hosts share an arbiter, once',
  options: {},
  async run(input) {
    const [text, ...more] = input.args;
    if (text === undefined || more.length > 0) throw new UsageError('which folder? file:/PATH');
    const spec = parseArbiter(text);
    if (spec.kind !== 'file') throw new UsageError(`${text}: only a folder has to be made one`);
    await FileArbiter.init(spec.path);
    print(input, `${spec.path} is an arbiter: give hosts --arbiter ${text}`, { path: spec.path });
    return 0;
  },
};
