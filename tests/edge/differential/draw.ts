// Draws from random numbers: by weight, whole numbers, and pieces of bytes. Called by whatever makes random cases.
import { Chance } from "../bodies.js";

export class Draw extends Chance {
  /** A draw of its own for each number of a seed. */
  static of(seed: number, number: number): Draw {
    return new Draw(Math.imul(seed ^ 0x9e3779b1, 0x85ebca6b) ^ Math.imul(number + 1, 0xc2b2ae35));
  }

  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** One of the values, each as often as its weight says. */
  weighted<T>(of: readonly (readonly [weight: number, value: T])[]): T {
    let at = this.below(of.reduce((sum, [weight]) => sum + weight, 0));
    return of.find(([weight]) => (at -= weight) < 0)![1];
  }

  /** Splits bytes at random places into so many pieces at most. */
  split(bytes: Buffer, most: number): Buffer[] {
    const cuts = Array.from({ length: this.below(most) }, () => this.below(bytes.length + 1)).sort((a, b) => a - b);
    const places = [0, ...cuts, bytes.length];
    return places.slice(1).flatMap((end, i) => (end > places[i] ? [bytes.subarray(places[i], end)] : []));
  }
}
