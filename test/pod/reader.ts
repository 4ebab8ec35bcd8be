/** Looks at the pods of a data folder again and again, until it is killed; says so once it has begun. */
import { listPods } from '../../src/pod/lifecycle.ts';

const [, , dataDir = ''] = process.argv;
listPods(dataDir);
process.stdout.write('reading\n');
for (;;) listPods(dataDir);
