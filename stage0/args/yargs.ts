/** yargs in a chunk of the bundle (stage0/hot.ts says why it is imported here). */
import '../hot.ts';

export { default } from 'yargs';
