// Makes elements from template literals, so that the page needs no JSX compiler. Takes a template with its values,
// returns elements of Preact. Called by every part of the page.
import htm from "htm";
import { h } from "preact";

const createElement = htm.bind(h);
/** The spaced strings of each template. htm knows a template by the identity of its strings. */
const spacedTemplates = new WeakMap();

/** htm drops spaces beside line breaks. HTML and prettier take them for one space, so one is put there. */
const spaced = (strings) =>
  strings.map((text, index) => {
    const flat = text.replace(/\s*\n\s*/g, " ");
    const trimmed = index === 0 ? flat.trimStart() : flat;
    return index === strings.length - 1 ? trimmed.trimEnd() : trimmed;
  });

/** The tag of templates: html`<b>${text}</b>`. */
export function html(strings, ...values) {
  if (!spacedTemplates.has(strings)) spacedTemplates.set(strings, spaced(strings));
  return createElement(spacedTemplates.get(strings), ...values);
}
