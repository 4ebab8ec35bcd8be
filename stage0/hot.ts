/**
 * Everything that starting a pod needs. Each part of the tool that is loaded later imports this, too, which
 * makes the bundler put all of it into one chunk: what several parts share would otherwise become a dozen
 * small ones, and each costs `run` a third of a millisecond.
 */
import './args/context.ts';
import './args/pods.ts';
import './args/tables.ts';
import './args/tokenizer.ts';
import './commands/prepare.ts';
import './commands/run.ts';
import './commands/run-prepared.ts';
