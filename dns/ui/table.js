// A table that sorts by any column and is copied as CSV or JSON. Takes columns and rows.
import { Component } from "preact";
import { useState } from "preact/hooks";
import { html } from "./html.js";
import { count } from "./text.js";

/** How many rows are shown at first. */
const FIRST = 150;
/** How many rows are shown again together. */
const CHUNK = 40;
/** How near rows have to be to what is seen to be shown again. */
const NEAR = "800px";

const compare = (one, other) => {
  if (one == null || other == null) return Number(one == null) - Number(other == null);
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
};

/** A cell of CSV. A spreadsheet takes what begins like a formula for one, so a quote is put before it. */
export const cell = (value) => {
  if (value == null) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(String(value)) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const plain = (columns, rows) =>
  rows.map((row) => Object.fromEntries(columns.map((column) => [column.key, column.value(row) ?? null])));

export const toCsv = (columns, rows) => {
  const lines = plain(columns, rows).map((row) => Object.values(row).map(cell).join(","));
  return [columns.map((column) => cell(column.key)).join(","), ...lines].join("\r\n") + "\r\n";
};

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A page that came without TLS from another machine may not use the clipboard's own interface.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("this browser doesn't copy");
  return undefined;
}

/** Tells each part of a table whether it is near to what is seen. */
const nearness = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.target.told?.(entry.isIntersecting)),
  { rootMargin: NEAR },
);

/** Some rows of a table. Those that are far from what is seen stay as they are until one scrolls to them, so that a
 * thousand rows cost no more than those that are seen; they can still be searched. If other rows belong to a part, it is
 * shown again at once: a row would be missing or stand in two parts. */
class Chunk extends Component {
  isNear = true;
  body = (element) => {
    if (this.element) nearness.unobserve(this.element);
    this.element = element;
    if (!element) return;
    element.told = (isNear) => {
      const isBack = isNear && !this.isNear;
      this.isNear = isNear;
      if (isBack) this.forceUpdate();
    };
    nearness.observe(element);
  };

  shouldComponentUpdate({ order, keys }) {
    return this.isNear || order !== this.props.order || keys !== this.props.keys;
  }

  render({ rows, row }) {
    return html`<tbody ref=${this.body}>
      ${rows.map(row)}
    </tbody>`;
  }
}

/** `columns`: key, label, value of a row, and optionally how its cell looks. `start`: the key sorted by at first. */
export function Table({ caption, columns, rows, start, empty, note, cards = true }) {
  const [sort, setSort] = useState({ key: start ?? null, down: false });
  const [all, setAll] = useState(false);
  const [said, say] = useState("");
  const by = columns.find((column) => column.key === sort.key);
  const sorted = by
    ? rows.toSorted((one, other) => compare(by.value(one), by.value(other)) * (sort.down ? -1 : 1))
    : rows;
  const shown = all ? sorted : sorted.slice(0, FIRST);
  const copyAs = (kind) => async () => {
    const text = kind === "CSV" ? toCsv(columns, sorted) : JSON.stringify(plain(columns, sorted), null, 1);
    say(
      await copy(text).then(
        () => `copied as ${kind}`,
        (error) => error.message,
      ),
    );
  };
  const head = (column) => {
    const own = sort.key === column.key;
    const order = own ? (sort.down ? "descending" : "ascending") : "none";
    const turn = () => setSort({ key: column.key, down: own && !sort.down });
    return html`<th scope="col" aria-sort=${order} class=${column.right ? "right" : ""}>
      <button type="button" onClick=${turn}>${column.label}<span class="arrow" aria-hidden="true"></span></button>
    </th>`;
  };
  const row = (one) =>
    html`<tr key=${one.key} class=${one.tone ?? ""}>
      ${columns.map(
        (column) =>
          html`<td data-label=${column.label} class=${column.right ? "right" : ""}>
            ${column.cell ? column.cell(one) : (column.value(one) ?? "–")}
          </td>`,
      )}
    </tr>`;
  const chunks = Array.from({ length: Math.ceil(shown.length / CHUNK) }, (_, nth) => nth * CHUNK);
  // With other columns or in another order, all rows are others.
  const order = `${sort.key} ${sort.down} ${columns.map((column) => column.key)}`;
  const chunk = (at) => {
    const some = shown.slice(at, at + CHUNK);
    const keys = JSON.stringify(some.map((one) => one.key));
    return html`<${Chunk} key=${at} order=${order} keys=${keys} row=${row} rows=${some} />`;
  };
  return html`<section class="table ${cards ? "cards" : ""}" aria-label=${caption}>
    <header>
      <h2>${caption} <small>${count(rows.length)}</small></h2>
      ${note && html`<p class="soft">${note}</p>`}
      <p class="copy">
        <span role="status">${said}</span>
        <button type="button" onClick=${copyAs("CSV")} aria-label="copy ${caption} as CSV">CSV</button>
        <button type="button" onClick=${copyAs("JSON")} aria-label="copy ${caption} as JSON">JSON</button>
      </p>
    </header>
    ${
      rows.length === 0
        ? html`<p class="soft empty">${empty ?? "nothing here"}</p>`
        : html`<div class="scroll" role="region" aria-label="${caption}, all columns" tabindex="0">
            <table>
              <thead>
                <tr>
                  ${columns.map(head)}
                </tr>
              </thead>
              ${chunks.map(chunk)}
            </table>
          </div>`
    }
    ${
      shown.length < rows.length &&
      html`<p><button type="button" onClick=${() => setAll(true)}>show all ${count(rows.length)}</button></p>`
    }
  </section>`;
}
