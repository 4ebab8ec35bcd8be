/** systemd 252, Linux 6.1. */
import { hostSuite } from './host-suite.ts';

hostSuite('bookworm', { layers: 'loop devices', part: 'two' });
