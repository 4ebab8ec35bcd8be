/** A few images that share layers, the same in every process of a test. */
import { type TestImage, testImage } from './support.ts';

export const IMAGES = 10;

/** Three layers each, of which two are also in the next image. */
export function imageNumber(index: number): TestImage {
  return testImage(
    `image ${index}`,
    [0, 1, 2].map(offset => `layer ${(index + offset) % IMAGES} `.repeat(700)),
  );
}
