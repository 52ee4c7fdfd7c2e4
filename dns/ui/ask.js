// What would this client get? Asks every node, and shows where they differ.
import { useState } from "preact/hooks";
import { query } from "./api.js";
import { html } from "./html.js";
import { useAnswer, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, country, moment } from "./text.js";

const KINDS = [
  ["client", "an address"],
  ["country", "a country"],
  ["tenant", "a tenant"],
];

const withheld = (one) => one.withheld.map((each) => `${each.region} (${each.reason})`).join(", ");
const orders = (one) => one.ordered.map((each) => each.region);

/** What of two explanations has to be alike. */
const same = (one, other) =>
  ["revision", "fence"].every((key) => JSON.stringify(one[key]) === JSON.stringify(other[key])) &&
  JSON.stringify(orders(one)) === JSON.stringify(orders(other));

function Explained({ answer }) {
  const rows = Object.entries(answer.nodes).map(([node, one]) => ({ key: node, node, one }));
  const own = answer.nodes[answer.asked];
  const differs = (read) => (row) => {
    const isOther = JSON.stringify(read(row.one)) !== JSON.stringify(read(own));
    return html`<span class=${isOther ? "differs" : ""}
      >${isOther && html`<b>differs: </b>`}<${Foreign} text=${[read(row.one)].flat().join(", ") || "–"}
    /></span>`;
  };
  const column = (key, label, read) => ({
    key,
    label,
    value: (row) => [read(row.one)].flat().join(", "),
    cell: differs(read),
  });
  const columns = [
    {
      key: "node",
      label: "Node",
      value: (row) => row.node,
      cell: (row) => html`<${Foreign} text=${row.node} most=${60} />`,
    },
    column("to", "Goes to", (one) => one.moved_to ?? orders(one)[0] ?? "nowhere"),
    column("then", "Then", (one) => orders(one).slice(1)),
    column("withheld", "Withheld", withheld),
    column("fence", "Fence", (one) => one.fence),
    column("by", "By", (one) => one.fence_by ?? one.client.source),
    column("revision", "Revision", (one) => one.revision),
  ];
  const all = rows.every((row) => same(row.one, own));
  const place = own.client.country ? country(own.client.country) : "an unknown place";
  return html` <p class="answer" role="status">
      ${orders(own)[0] ? html`<b><${Foreign} text=${own.moved_to ?? orders(own)[0]} /></b>` : "nowhere"}
      <small>
        for a client in
        ${place}${own.client.jurisdictions.length > 0 ? ` (${own.client.jurisdictions.join(", ")})` : ""};
        ${rows.length === 1 ? "this node alone was asked" : all ? `all ${rows.length} nodes agree` : "nodes differ"}</small
      >
    </p>
    ${(own.shed ?? []).map((one) => html`<p class="soft">${Math.round(one.share * 100)} % of such clients are moved from <bdi>${one.from}</bdi> to <bdi>${one.to}</bdi> because of load.</p>`)}
    ${answer.missing.map((one) => html`<p class="warn"><${Foreign} text=${one.peer} /> gave no answer: <${Foreign} text=${one.why} /></p>`)}
    <${Table} caption="By node" rows=${rows} columns=${columns} />`;
}

export function Ask() {
  const { picture } = useStore();
  const services = picture.services ?? picture.going.map((one) => one.service);
  const [draft, change] = useState({ service: services[0] ?? "", kind: "country", who: "DE" });
  const [asked, ask] = useState({ path: null, turn: 0 });
  const { data, problem, at } = useAnswer(asked.path, 0, asked.turn);
  const edit = (key) => (event) => change({ ...draft, [key]: event.target.value });
  const submit = (event) => {
    event.preventDefault();
    const path = query("/v1/explain/nodes", { service: draft.service, [draft.kind]: draft.who.trim() });
    // What was true a minute ago may not be now, so the same question is asked again.
    ask({ path, turn: asked.turn + 1 });
  };
  return html`<section class="card" aria-label="what would this client get">
    <h2>What would this client get?</h2>
    <form onSubmit=${submit}>
      <label
        >Service
        <select value=${draft.service} onChange=${edit("service")}>
          ${services.map((one) => html`<option key=${one}>${one}</option>`)}
        </select></label
      >
      <label
        >Client by
        <select value=${draft.kind} onChange=${edit("kind")}>
          ${KINDS.map(([kind, words]) => html`<option key=${kind} value=${kind}>${words}</option>`)}
        </select></label
      >
      <label
        >Which
        <input
          required
          maxlength="200"
          autocomplete="off"
          spellcheck=${false}
          value=${draft.who}
          onInput=${edit("who")}
      /></label>
      <button type="submit" class="primary">Ask every node</button>
    </form>
    <p class="soft asked" role="status">${asked.path && (at ? `Answered at ${moment(at)}.` : "Asking every node…")}</p>
    ${problem && html`<p class="warn" role="alert"><${Foreign} text=${problem.message} most=${400} /></p>`}
    ${data && html`<${Explained} answer=${data} />`}
  </section>`;
}
