/** The OpenPGP library in a chunk of its own: 55 ms to load, for whoever verifies or reviews a key. */
import '../../hot.ts';

export * from 'openpgp';
