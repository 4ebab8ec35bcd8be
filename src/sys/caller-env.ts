/**
 * The environment as the user had it. The starter (native/starter.c) puts variables that would steer Node
 * aside as TSPOD_SAVED_<NAME> and adds its own; `--inherit-env` must see neither.
 */
const SAVED = 'TSPOD_SAVED_';
const OWN = new Set(['TSPOD_START', 'TSPOD_ARGV0', 'TSPOD_FAULT', 'NODE_COMPILE_CACHE']);

/** @param env what this process has, usually process.env */
export function callerEnvironment(env: NodeJS.ProcessEnv): Readonly<Record<string, string>> {
  const caller: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || OWN.has(name)) continue;
    caller[name.startsWith(SAVED) ? name.slice(SAVED.length) : name] = value;
  }
  return caller;
}
