// What each fence carries without one of its regions.
import { html } from "./html.js";
import { useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, count, percent } from "./text.js";

export function Capacity() {
  const { picture } = useStore();
  const rows = picture.margins.map((one) => ({
    key: `${one.fence.join("+")} ${one.lost}`,
    ...one,
    tone: one.load > 1 ? "down" : one.load > 0.9 ? "full" : "",
  }));
  const by =
    picture.margins[0]?.by === "measured"
      ? "by the demand that is measured now"
      : "by the capacity and demand that the rules state";
  const over = rows.filter((row) => row.load > 1).length;
  const columns = [
    {
      key: "lost",
      label: "Without",
      value: (row) => row.lost,
      cell: (row) => html`<b><${Foreign} text=${row.lost} most=${60} /></b>`,
    },
    {
      key: "load",
      label: "Load of the others",
      right: true,
      value: (row) => row.load,
      cell: (row) => html`<span class=${row.load > 1 ? "differs" : ""}>${percent(row.load)}</span>`,
    },
    { key: "carried", label: "Carried", value: (row) => (row.load > 1 ? "no" : row.load > 0.9 ? "barely" : "yes") },
    {
      key: "fence",
      label: "Fence",
      value: (row) => row.fence.join(", "),
      cell: (row) => html`<${Foreign} text=${row.fence.join(", ")} />`,
    },
  ];
  const loads = picture.regions
    .filter((one) => one.capacity != null || one.load != null)
    .map((one) => ({ key: one.region, ...one }));
  const ofRegions = [
    {
      key: "region",
      label: "Region",
      value: (row) => row.region,
      cell: (row) => html`<${Foreign} text=${row.region} most=${60} />`,
    },
    {
      key: "capacity",
      label: "Capacity",
      right: true,
      value: (row) => row.capacity,
      cell: (row) => count(row.capacity),
    },
    { key: "load", label: "Load", right: true, value: (row) => row.load, cell: (row) => percent(row.load) },
    { key: "low", label: "Takes up to", right: true, value: (row) => row.low, cell: (row) => percent(row.low) },
    { key: "high", label: "Sheds above", right: true, value: (row) => row.high, cell: (row) => percent(row.high) },
  ];
  return html` ${
      rows.length > 0 &&
      html`<p class="answer">
        ${over === 0 ? "Every fence carries the loss of any one region." : `${over} of ${rows.length} losses can't be carried.`}
        <small>${by}; <code>bailiwick plan</code> tells more</small>
      </p>`
    }
    <${Table}
      caption="N−1"
      rows=${rows}
      columns=${columns}
      empty="Not known: it needs the capacity and the demand of every region of a fence, as “load” of the rules or as read from engines."
    />
    ${loads.length > 0 && html`<${Table} caption="Capacity and load" rows=${loads} columns=${ofRegions} />`}`;
}
