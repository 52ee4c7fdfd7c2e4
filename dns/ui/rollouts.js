// Rollouts: how far they are, what each arm shows, and which differences remain possible.
import { html } from "./html.js";
import { useAnswer, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, ago, count } from "./text.js";

const points = (value) => `${value > 0 ? "+" : ""}${(value * 100).toFixed(2)} points`;
const times = (value) => (value > 100 ? "> 100 ×" : `${value.toFixed(2)} ×`);
const share = (value) => (value == null ? "–" : `${(value * 100).toFixed(2)} %`);

/** What remains possible, on a line whose middle is “no difference”; the margin is where it turns bad. */
function Range({ row }) {
  if (!row.possible) return "–";
  const [low, high] = row.possible;
  const [zero, margin, word] = row.of === "ratio" ? [1, row.margin, times] : [0, row.margin, points];
  const reach = Math.max(
    Math.abs(margin - zero) * 2,
    Math.min(Math.abs(high - zero), Math.abs(margin - zero) * 6),
    1e-9,
  );
  const x = (value) => Math.max(0, Math.min(100, 50 + ((value - zero) / reach) * 50)).toFixed(1);
  return html`<span class="range">
    <svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">
      <rect class="rail" y="5" width="100" height="2" />
      <path class="zero" d="M50 0V12" />
      <rect
        class=${low > margin ? "worse" : "span"}
        x=${x(low)}
        y="3"
        width=${Math.max(1, x(high) - x(low))}
        height="6"
      />
      <path class="margin" d="M${x(margin)} 0V12" />
    </svg>
    ${word(low)} to ${word(high)}
  </span>`;
}

export function Rollouts() {
  const { picture } = useStore();
  const { data, problem } = useAnswer("/v1/rollouts/intervals", 5000);
  const rows = Object.entries(data?.rollouts ?? {}).flatMap(([rollout, { regions }]) =>
    Object.entries(regions).flatMap(([region, { since, measures }]) =>
      measures.map((one) => ({ key: `${rollout} ${region} ${one.measure}`, rollout, region, since, ...one })),
    ),
  );
  const columns = [
    { key: "rollout", label: "Rollout", value: (row) => row.rollout },
    {
      key: "region",
      label: "Region",
      value: (row) => row.region,
      cell: (row) => html`<${Foreign} text=${row.region} most=${60} />`,
    },
    { key: "since", label: "Step began", value: (row) => row.since, cell: (row) => ago(row.since) },
    { key: "measure", label: "Measure", value: (row) => row.measure },
    {
      key: "old_samples",
      label: "Old",
      right: true,
      value: (row) => row.samples[0],
      cell: (row) => `${row.seen ? `${share(row.seen[0])} of ` : ""}${count(row.samples[0])}`,
    },
    {
      key: "new_samples",
      label: "New",
      right: true,
      value: (row) => row.samples[1],
      cell: (row) => `${row.seen ? `${share(row.seen[1])} of ` : ""}${count(row.samples[1])}`,
    },
    {
      key: "low",
      label: "Difference that remains possible",
      value: (row) => row.possible?.[0] ?? null,
      cell: (row) => html`<${Range} row=${row} />`,
    },
    {
      key: "high",
      label: "At most",
      right: true,
      value: (row) => row.possible?.[1] ?? null,
      cell: (row) => (row.possible ? (row.of === "ratio" ? times : points)(row.possible[1]) : "–"),
    },
    {
      key: "margin",
      label: "Allowed",
      right: true,
      value: (row) => row.margin,
      cell: (row) => (row.of === "ratio" ? times(row.margin) : points(row.margin)),
    },
  ];
  const all = [
    { key: "rollout", label: "Rollout", value: (row) => row.rollout },
    { key: "service", label: "Service", value: (row) => row.service },
    {
      key: "change",
      label: "Replaces",
      value: (row) => row.change,
      cell: (row) => html`<${Foreign} text=${row.change} />`,
    },
    { key: "says", label: "State", value: (row) => row.says, cell: (row) => html`<${Foreign} text=${row.says} />` },
    {
      key: "obstacles",
      label: "In the way now",
      value: (row) => data?.rollouts[row.rollout]?.obstacles.join("; ") ?? null,
      cell: (row) => html`<${Foreign} text=${data?.rollouts[row.rollout]?.obstacles.join("; ") || "nothing"} />`,
    },
  ];
  return html` ${problem && html`<p class="warn"><${Foreign} text=${problem.message} most=${400} /></p>`}
    <${Table}
      caption="Rollouts"
      rows=${picture.rollouts.map((one) => ({ key: one.rollout, ...one }))}
      columns=${all}
      empty="The rules have no rollout."
    />
    ${rows.length > 0 && html`<${Table} caption="Old arm and new arm" rows=${rows} columns=${columns} note="as this node was told; each interval holds with 99 % however often one looks" />`}`;
}
