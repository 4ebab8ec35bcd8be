/** Prints the trees at its arguments as JSON: for trees that only another mount namespace has. */
import { listTree } from './tree.ts';

const trees = process.argv.slice(2).map(root => [...listTree(root)]);
const said = JSON.stringify(trees, (_, value: unknown) =>
  typeof value === 'bigint' ? String(value) : value,
);
process.stdout.write(said);
