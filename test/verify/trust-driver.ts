/** Runs the review of a key on this process's terminal: `node trust-driver.ts CONFIG-FOLDER KEY-FILE...`. */

import { trustOpenPgpKeys } from '../../stage0/verify/openpgp/trust-keys.ts';
import { testContext } from '../fetch/support.ts';

const [folder = '', ...keys] = process.argv.slice(2);
const added = await trustOpenPgpKeys(testContext(folder, { localConfig: folder }), {
  prefix: 'example.com/app',
  root: false,
  skipFingerprintReview: false,
  insecureAllowHttp: false,
  keys,
});
console.log(`added ${added.length}`);
