/**
 * Resource quantities as appc has them from Kubernetes (appc 0.8.11 "Isolators"; apimachinery
 * resource.Quantity): a decimal number and a suffix, binary (`16Mi`), decimal (`50M`, `500m`) or an
 * exponent (`1e3`). Exact: no floating point.
 */
import { TspodError } from '../errors.ts';

const BINARY = ['Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
/** Powers of ten of a suffix. */
const DECIMAL: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  '': 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const GRAMMAR =
  /^\+?([0-9]{1,20})(?:\.([0-9]{0,20}))?(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?[0-9]{1,2}))?$/;

/**
 * The quantity in units of `10^-scale` (0: whole units such as bytes; 3: thousandths such as
 * milli-CPUs), rounded up.
 * @throws TspodError 'pod' naming `what`
 */
export function parseQuantity(text: string, scale: number, what: string): bigint {
  const match = GRAMMAR.exec(text);
  if (match === null) {
    throw new TspodError('pod', `${what}: ${JSON.stringify(text.slice(0, 60))} is not a quantity`, {
      hint: 'write for example 16Mi, 50M or 500m',
    });
  }
  const [, whole = '', fraction = '', binary, decimal = '', exponent] = match;
  const power =
    binary === undefined
      ? exponent === undefined
        ? (DECIMAL[decimal] ?? 0)
        : Number(exponent)
      : 0;
  const factor = binary === undefined ? 1n : 1024n ** BigInt(BINARY.indexOf(binary) + 1);
  const digits = BigInt(whole + fraction) * factor;
  const shift = scale + power - fraction.length;
  if (shift >= 0) return digits * 10n ** BigInt(shift);
  const divisor = 10n ** BigInt(-shift);
  return (digits + divisor - 1n) / divisor;
}
