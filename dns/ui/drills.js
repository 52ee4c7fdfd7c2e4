// Drills: the one that is under way, those of the rules, whether each could begin now, and what came of the last ones.
import { html } from "./html.js";
import { useAnswer, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, ago, count, left, percent, span } from "./text.js";

/** The largest ratio stands for a fence without capacity. */
const load = (value) => (value > 4000 ? "∞" : percent(value));
const seconds = (ms) => (ms == null ? "never seen" : span(ms));

/** How a drill stands, in a few words. */
export function Standing({ drill }) {
  if (drill.is_running) {
    return html`<b>${drill.share} %</b> of <bdi>${drill.region}</bdi> elsewhere
      <span class="soft">for ${left(drill.until)} unless renewed</span>`;
  }
  return html`ended: <${Foreign} text=${drill.ended ?? "nobody renewed it"} most=${120} />`;
}

const planned = [
  { key: "drill", label: "Drill", value: (row) => row.drill },
  {
    key: "region",
    label: "Region",
    value: (row) => row.region,
    cell: (row) => html`<${Foreign} text=${row.region} most=${60} />`,
  },
  {
    key: "next",
    label: "Begins (UTC)",
    value: (row) => row.next,
    cell: (row) => (row.next ? row.next.replace("T", " ").slice(0, 16) : "by hand only"),
  },
  { key: "span", label: "Takes", right: true, value: (row) => row.span_ms, cell: (row) => span(row.span_ms) },
  { key: "verdict", label: "Preflight now", value: (row) => row.preflight.verdict },
  {
    key: "reasons",
    label: "In the way now",
    value: (row) => row.preflight.reasons.join("; "),
    cell: (row) => html`<${Foreign} text=${row.preflight.reasons.join("; ") || "nothing"} />`,
  },
  {
    key: "without",
    label: "Fullest fence without it",
    right: true,
    value: (row) => row.preflight.fences[0]?.load ?? null,
    cell: (row) => (row.preflight.fences[0]?.load == null ? "–" : load(row.preflight.fences[0].load)),
  },
];

const outside = (row) => row.checked.dns_outside + row.checked.edge_outside;
const checked = (row) => row.checked.dns + row.checked.edge;
const phase = (key, label) => ({
  key,
  label: `${label}: failed, first token`,
  right: true,
  value: (row) => row[key].failed,
  cell: (row) =>
    row[key].requests === 0
      ? "–"
      : `${percent(row[key].failed / row[key].requests)}${row[key].first_token_ms ? `, ${count(row[key].first_token_ms[1])} ms` : ""}`,
});

const reports = [
  { key: "drill", label: "Drill", value: (row) => row.drill },
  {
    key: "region",
    label: "Region",
    value: (row) => row.region,
    cell: (row) => html`<${Foreign} text=${row.region} most=${60} />`,
  },
  { key: "began", label: "Began", value: (row) => row.began ?? row.since, cell: (row) => ago(row.began ?? row.since) },
  { key: "outcome", label: "Outcome", value: (row) => row.outcome },
  {
    key: "why",
    label: "Because",
    value: (row) => row.why.join("; "),
    cell: (row) => html`<${Foreign} text=${row.why.join("; ")} />`,
  },
  {
    key: "outside",
    label: "Outside the fence",
    right: true,
    value: outside,
    cell: (row) => html`<b class=${outside(row) > 0 ? "differs" : ""}>${outside(row)}</b> of ${count(checked(row))}`,
  },
  {
    key: "dns",
    label: "95 % moved, DNS",
    right: true,
    value: (row) => row.moved.dns_ms,
    cell: (row) => seconds(row.moved.dns_ms),
  },
  {
    key: "edge",
    label: "Edge",
    right: true,
    value: (row) => row.moved.edge_ms,
    cell: (row) => seconds(row.moved.edge_ms),
  },
  {
    key: "late",
    label: "After twice the TTL",
    right: true,
    value: (row) => row.late.dns + row.late.edge,
    cell: (row) => (row.late.ms === 0 ? "–" : count(row.late.dns + row.late.edge)),
  },
  phase("before", "Before"),
  phase("during", "During"),
  phase("after", "After"),
];

export function Drills() {
  const { picture } = useStore();
  const { data, problem } = useAnswer("/v1/drills", 10_000);
  const { data: kept, problem: other } = useAnswer("/v1/drill-records", 10_000);
  const said = problem ?? other;
  const rows = Object.entries(data?.drills ?? {}).map(([drill, one]) => ({ key: drill, drill, ...one }));
  const records = (kept?.records ?? []).map((one) => ({ key: `${one.drill} ${one.since}`, ...one }));
  return html` ${said && html`<p class="warn"><${Foreign} text=${said.message} most=${400} /></p>`}
    ${
      picture.drill &&
      html`<p class="answer">Drill <bdi>${picture.drill.drill}</bdi>: <${Standing} drill=${picture.drill} /></p>`
    }
    <${Table} caption="Drills" rows=${rows} columns=${planned} empty="The rules have no drill." />
    <${Table}
      caption="Reports"
      rows=${records}
      columns=${reports}
      empty="No drill has left a report at this node."
      note="bailiwick drill report NAME --html FILE writes one with all its minutes"
    />`;
}
