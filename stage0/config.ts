/** The configuration, in a chunk of its own: most runs find no configuration to read. */
import './hot.ts';

export { loadConfig } from '../src/config/config.ts';
