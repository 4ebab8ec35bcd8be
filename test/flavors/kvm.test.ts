import { flavorContract } from './contract.ts';

flavorContract({
  name: 'kvm',
  oneProcess: false,
  listenFds: false,
  keepsStatus: true,
  hostNetwork: false,
  copies: true,
  readsInput: false,
  limitsByV1: false,
  hostProcesses: false,
  ownKernel: true,
  // No other works on every machine that runs the tests.
  flags: ['--qemu-accel=tcg'],
});
