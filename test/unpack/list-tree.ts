/** Prints the tree at its argument as JSON: for trees that only another mount namespace has. */
import { listTree } from './tree.ts';

const tree = listTree(process.argv[2] ?? '');
const said = JSON.stringify([...tree], (_, value: unknown) =>
  typeof value === 'bigint' ? String(value) : value,
);
process.stdout.write(said);
