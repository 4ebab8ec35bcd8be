import { directoryForm } from '../../stage0/unpack/directory.ts';
import { layerContract } from './layer-contract.ts';

layerContract(directoryForm);
