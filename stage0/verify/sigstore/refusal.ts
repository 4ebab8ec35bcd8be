/** Why a signature does not count, from the depth of a check to its Outcome: one clause, no full stop. */
export class Refusal extends Error {}

export function refuse(reason: string): never {
  throw new Refusal(reason);
}
