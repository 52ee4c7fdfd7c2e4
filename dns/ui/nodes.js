// The nodes of the fleet, as the node that is asked hears them.
import { html } from "./html.js";
import { useAnswer, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, ago, count, span } from "./text.js";

export function Nodes() {
  const { picture } = useStore();
  const { data, problem } = useAnswer("/v1/fleet/nodes", 5000);
  const all = data ? [data.asked, ...Object.values(data.peers)] : [];
  const rows = all.map((one, place) => ({
    key: `${place} ${one.node}`,
    ...one,
    tone: one.sha256 !== data.asked.sha256 ? "full" : "",
  }));
  const differs = (row, key) => html`<span class=${row[key] !== data.asked[key] ? "differs" : ""}>${row[key]}</span>`;
  const columns = [
    {
      key: "node",
      label: "Node",
      value: (row) => row.node,
      cell: (row) =>
        html`<b><${Foreign} text=${row.node} most=${60} /></b>${row.node === data.asked.node ? " (this one)" : ""}`,
    },
    {
      key: "revision",
      label: "Revision",
      right: true,
      value: (row) => row.revision,
      cell: (row) => differs(row, "revision"),
    },
    { key: "stage", label: "Stage", value: (row) => row.stage },
    { key: "mode", label: "Rules from", value: (row) => row.mode },
    {
      key: "lag_seconds",
      label: "Behind",
      right: true,
      value: (row) => row.lag_seconds,
      cell: (row) => span(row.lag_seconds * 1000),
    },
    {
      key: "answers",
      label: "Answers",
      right: true,
      value: (row) => row.serving?.answers ?? null,
      cell: (row) => count(row.serving?.answers),
    },
    { key: "geoip_built", label: "Geography of", value: (row) => row.geoip_built?.slice(0, 10) ?? null },
    {
      key: "clock",
      label: "Clock",
      value: (row) => row.now,
      cell: (row) => html`<time datetime=${row.now}>${row.now.slice(11, 19)}</time>`,
    },
  ];
  const peers = picture.peers.map((one) => ({ key: one.url, ...one, tone: one.trouble ? "down" : "" }));
  const heard = [
    {
      key: "node",
      label: "Peer",
      value: (row) => row.node ?? row.url,
      cell: (row) => html`<${Foreign} text=${row.node ?? row.url} most=${80} />`,
    },
    { key: "answered_at", label: "Heard", value: (row) => row.answered_at, cell: (row) => ago(row.answered_at) },
    { key: "revision", label: "Revision", right: true, value: (row) => row.revision },
    {
      key: "clock_ahead_ms",
      label: "Clock ahead",
      right: true,
      value: (row) => row.clock_ahead_ms ?? null,
      cell: (row) => (row.clock_ahead_ms == null ? "–" : `${row.clock_ahead_ms} ms`),
    },
    {
      key: "trouble",
      label: "Trouble",
      value: (row) => row.trouble,
      cell: (row) => html`<${Foreign} text=${row.trouble ?? "–"} />`,
    },
  ];
  const sources = picture.sources.map((one) => ({ key: one.source, ...one }));
  const ofSources = [
    { key: "source", label: "Source", value: (row) => row.source },
    {
      key: "what",
      label: "In service",
      value: (row) => row.what,
      cell: (row) => html`<${Foreign} text=${row.what} />`,
    },
    { key: "accepted_at", label: "Taken", value: (row) => row.accepted_at, cell: (row) => ago(row.accepted_at) },
    {
      key: "errors",
      label: "Refused since",
      value: (row) => row.errors.join("; "),
      cell: (row) => html`<${Foreign} text=${row.errors.join("; ") || "nothing"} most=${300} />`,
    },
  ];
  return html` ${problem && html`<p class="warn"><${Foreign} text=${problem.message} most=${400} /></p>`}
    ${data?.missing.map((one) => html`<p class="warn"><${Foreign} text=${one.peer} /> gave no answer: <${Foreign} text=${one.why} /></p>`)}
    <${Table} caption="Nodes" rows=${rows} columns=${columns} empty="asking…" />
    ${peers.length > 0 && html`<${Table} caption="Heard by this node" rows=${peers} columns=${heard} />`}
    <${Table} caption="Sources of this node" rows=${sources} columns=${ofSources} />`;
}
