import { flavorContract } from './contract.ts';

flavorContract({
  name: 'nspawn',
  oneProcess: false,
  listenFds: true,
  keepsStatus: true,
  hostNetwork: false,
  copies: true,
  readsInput: false,
  limitsByV1: false,
  hostProcesses: false,
});
