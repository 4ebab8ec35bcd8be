/** Stands in for the package of this name: yargs pads its help with it, and our help is plain text. */
export default function stringWidth(text: string): number {
  return [...text].length;
}
