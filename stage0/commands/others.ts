/** The commands that start no pod, in one chunk of the bundle (src/cli.ts says why). */
import '../hot.ts';

export { run as appAddCommand } from './app-add.ts';
export { list as appListCommand, status as appStatusCommand } from './app-list.ts';
export { run as appRmCommand } from './app-rm.ts';
export { start as appStartCommand, stop as appStopCommand } from './app-start.ts';
export { run as catManifestCommand } from './cat-manifest.ts';
export { run as configCommand } from './config.ts';
export { run as doctorCommand } from './doctor.ts';
export { run as enterCommand } from './enter.ts';
export { run as fetchCommand } from './fetch.ts';
export { run as finishCommand } from './finish.ts';
export { run as gcCommand } from './gc.ts';
export { run as imageCatManifestCommand } from './image-cat-manifest.ts';
export { run as imageExplainCommand } from './image-explain.ts';
export { run as imageGcCommand } from './image-gc.ts';
export { run as imageListCommand } from './image-list.ts';
export { run as imageRmCommand } from './image-rm.ts';
export { run as imageVerifyCommand } from './image-verify.ts';
export { run as listCommand } from './list.ts';
export { run as pushCommand } from './push.ts';
export { run as rmCommand } from './rm.ts';
export { run as statusCommand } from './status.ts';
export { run as stopCommand } from './stop.ts';
export { run as trustCommand } from './trust.ts';
export { run as trustListCommand } from './trust-list.ts';
export { run as trustRemoveCommand } from './trust-remove.ts';
export { run as showVersion } from './version.ts';
