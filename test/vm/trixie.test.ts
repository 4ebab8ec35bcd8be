/** systemd 257, Linux 6.12. */
import { hostSuite } from './host-suite.ts';

hostSuite('trixie', { layers: 'mounted straight from files', part: 'one' });
