// Elements from templates, without a compiler.
import htm from "htm";
import { h } from "preact";

const bound = htm.bind(h);
const known = new WeakMap();

/** htm drops spaces beside line breaks. HTML, and what formats these sources, takes them for one space. */
const spaced = (strings) =>
  strings.map((text, place) => {
    const flat = text.replace(/\s*\n\s*/g, " ");
    const begun = place === 0 ? flat.trimStart() : flat;
    return place === strings.length - 1 ? begun.trimEnd() : begun;
  });

export function html(strings, ...values) {
  if (!known.has(strings)) known.set(strings, spaced(strings));
  return bound(known.get(strings), ...values);
}
