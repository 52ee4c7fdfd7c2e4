// The rules that were in service: who published them, why, and what differs between two of them.
import { useState } from "preact/hooks";
import { html } from "./html.js";
import { useAnswer, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, ago, date, plural } from "./text.js";

/** How many differences are listed. */
const MOST = 500;

const isTree = (value) => value !== null && typeof value === "object";
const short = (value) => (value === undefined ? "" : JSON.stringify(value));

/** What differs between two documents, by place. */
export function differences(before, after, at = "", found = []) {
  if (found.length >= MOST) return found;
  if (isTree(before) && isTree(after) && Array.isArray(before) === Array.isArray(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      const step = `${at}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      differences(before[key], after[key], step, found);
    }
  } else if (short(before) !== short(after)) {
    found.push({ key: at, at, before: short(before), after: short(after) });
  }
  return found;
}

function Difference({ before, after }) {
  const one = useAnswer(`/v1/rules/history/${before}`);
  const other = useAnswer(`/v1/rules/history/${after}`);
  const problem = one.problem ?? other.problem;
  if (problem) return html`<p class="warn"><${Foreign} text=${problem.message} most=${400} /></p>`;
  if (!one.data || !other.data) return html`<p class="soft">reading…</p>`;
  const rows = differences(one.data, other.data);
  const value = (key, name) => ({
    key,
    label: name,
    value: (row) => row[key],
    cell: (row) => html`<code class=${key}><${Foreign} text=${row[key] || "–"} most=${200} /></code>`,
  });
  const columns = [
    {
      key: "at",
      label: "Place",
      value: (row) => row.at,
      cell: (row) => html`<code><${Foreign} text=${row.at} most=${120} /></code>`,
    },
    value("before", `Revision ${before}`),
    value("after", `Revision ${after}`),
  ];
  return html`<${Table}
    caption="Differences"
    rows=${rows}
    columns=${columns}
    empty="They are alike."
    note=${rows.length >= MOST ? `the first ${MOST}` : null}
  />`;
}

export function Rules() {
  const { picture } = useStore();
  const isAlone = picture.mode === "files";
  const { data, problem } = useAnswer(isAlone ? null : "/v1/rules/history", 10_000);
  const revisions = (data?.revisions ?? []).map((one) => one.revision);
  const [pair, setPair] = useState({});
  const [after, before] = [pair.after ?? revisions[0], pair.before ?? revisions[1]];
  const choose = (key) => (event) => setPair({ ...pair, [key]: Number(event.target.value) });
  const rows = (data?.revisions ?? []).map((one) => ({ key: one.revision, ...one }));
  const of = (key) => (row) => row.head?.[key] ?? null;
  const text = (key) => (row) => html`<${Foreign} text=${of(key)(row) ?? "–"} />`;
  const columns = [
    { key: "revision", label: "Revision", right: true, value: (row) => row.revision },
    { key: "author", label: "By", value: of("author"), cell: text("author") },
    {
      key: "created_at",
      label: "Published",
      value: of("created_at"),
      cell: (row) =>
        row.head
          ? html`<time datetime=${row.head.created_at} title=${row.head.created_at}>${date(row.head.created_at)}</time>`
          : "–",
    },
    { key: "reason", label: "Why", value: of("reason"), cell: text("reason") },
    { key: "impact", label: "Impact", value: of("impact"), cell: text("impact") },
    { key: "stage", label: "Stage", value: of("stage") },
    { key: "approved_by", label: "Approved by", value: (row) => row.head?.approved_by.join(", ") ?? null },
  ];
  const options = revisions.map((one) => html`<option key=${one} value=${one}>${one}</option>`);
  return html`<section class="card" aria-label="rules in service">
      <h2>Revision ${picture.revision} <small>in service since ${ago(picture.in_service_since)}</small></h2>
      ${
        picture.published &&
        html`<p>
            <b><${Foreign} text=${picture.published.author} /></b>:
            <${Foreign} text=${picture.published.reason} most=${400} />
          </p>
          ${picture.published.impact && html`<p class="soft"><${Foreign} text=${picture.published.impact} most=${400} /></p>`}`
      }
      <p class="soft">SHA-256 <code class="digest">${picture.rules_sha256}</code></p>
      ${picture.awaited_revision && html`<p class="warn">Revision ${picture.awaited_revision} was taken and isn't in service yet.</p>`}
      ${
        picture.warnings.length > 0 &&
        html`<details>
          <summary>${plural(picture.warnings.length, "warning")}</summary>
          <ul>
            ${picture.warnings.slice(0, 100).map((one) => html`<li><${Foreign} text=${one} most=${400} /></li>`)}
          </ul>
        </details>`
      }
      ${isAlone && html`<p class="soft">This node keeps no history, as it follows its own files.</p>`}
      ${problem && html`<p class="soft"><${Foreign} text=${problem.message} most=${400} /></p>`}
    </section>
    ${data && html`<${Table} caption="History" rows=${rows} columns=${columns} empty="Nothing was published yet." />`}
    ${
      revisions.length > 1 &&
      html`<section class="card" aria-label="compare two revisions">
        <h2>Compare</h2>
        <form>
          <label
            >from revision
            <select value=${before} onChange=${choose("before")}>
              ${options}
            </select></label
          >
          <label
            >to revision
            <select value=${after} onChange=${choose("after")}>
              ${options}
            </select></label
          >
        </form>
        <${Difference} before=${before} after=${after} />
      </section>`
    }`;
}
