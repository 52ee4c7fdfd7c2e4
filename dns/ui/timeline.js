// The last day: each region as a band, marks for what people changed, and the numbers of one region.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { query } from "./api.js";
import { html } from "./html.js";
import { EventList } from "./now.js";
import { useAnswer, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, clock, date, plural } from "./text.js";

/** How many regions are drawn; the worst come first. */
const MOST_BANDS = 60;
const EVERY = 30_000;
const WIDTH = 288;
const WORDS = { ".": "not noted", u: "unknown", 1: "up", f: "full", o: "forced down", x: "down" };
const BAD = { x: 4, o: 3, f: 2, u: 0.01 };

/** Pieces of equal letters: where they begin, how long they are. */
export function runs(letters) {
  const found = [];
  for (let at = 0; at < letters.length; at += 1) {
    const last = found.at(-1);
    if (last?.letter === letters[at]) last.length += 1;
    else found.push({ letter: letters[at], at, length: 1 });
  }
  return found;
}

const badness = (letters) => [...letters].reduce((sum, letter) => sum + (BAD[letter] ?? 0), 0);

const summary = (letters) => {
  const of = (letter) => [...letters].filter((one) => one === letter).length;
  const told = ["x", "o", "f"]
    .filter((letter) => of(letter) > 0)
    .map((letter) => `${WORDS[letter]} for about ${of(letter) * 5} min`);
  return told.length > 0 ? told.join(", ") : "never down or full while it was noted";
};

/** Where a mark stands, in columns of the band. */
const place = (at, { from, seconds }) => (Date.parse(at) - Date.parse(from)) / 1000 / seconds;

function Bands({ day, chosen }) {
  const names = useMemo(() => {
    const bad = Object.fromEntries(Object.entries(day.regions).map(([name, letters]) => [name, badness(letters)]));
    return Object.keys(bad).sort((one, other) => bad[other] - bad[one] || one.localeCompare(other));
  }, [day]);
  const hours = Array.from({ length: 7 }, (_, step) => clock(Date.parse(day.from) + (step * 4 - 0) * 3_600_000));
  const marks = day.marks.map((one) => ({ ...one, x: place(one.at, day) })).filter((one) => one.x >= 0);
  return html`<section class="card bands" aria-label="health of regions in the last 24 hours">
    <header>
      <h2>24 hours <small>UTC, five minutes a step</small></h2>
    </header>
    <ul class="legend">
      ${Object.entries(WORDS).map(([letter, word]) => html`<li><span class="chip s-${letter === "." ? "n" : letter}" aria-hidden="true"></span>${word}</li>`)}
      <li><span class="chip marked" aria-hidden="true"></span>rules, override, rollout, drill</li>
    </ul>
    <div class="hours" aria-hidden="true">${hours.map((one) => html`<span>${one}</span>`)}</div>
    <ul class="rows">
      ${names.slice(0, MOST_BANDS).map(
        (name) =>
          html`<li key=${name} class=${name === chosen ? "chosen" : ""}>
            <a href="#/timeline/${encodeURIComponent(name)}" aria-label="${name}: ${summary(day.regions[name])}"
              ><${Foreign} text=${name} most=${40}
            /></a>
            <svg viewBox="0 0 ${WIDTH} 14" preserveAspectRatio="none" aria-hidden="true">
              ${runs(day.regions[name]).map((run) => run.letter !== "." && html`<rect x=${run.at} width=${run.length} height="14" class="s-${run.letter}" />`)}
              ${marks.filter((one) => (!one.of.includes("/") ? [name, "rules", "fences"].includes(one.of) || one.kind === "rollout" : one.of.startsWith(`${name}/`))).map((one) => html`<rect class="stroke" x=${one.x.toFixed(2)} width="0.8" height="14" />`)}
            </svg>
          </li>`,
      )}
    </ul>
    ${names.length > MOST_BANDS && html`<p class="soft">The ${MOST_BANDS} with most trouble of ${plural(names.length, "region")}; the table below has all.</p>`}
  </section>`;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Load and first-token time of one region. */
function Numbers({ region, dark }) {
  const { data, problem } = useAnswer(query("/v1/timeline", { region }), EVERY);
  const holder = useRef(null);
  useEffect(() => {
    if (!data || !holder.current) return undefined;
    const from = Date.parse(data.from) / 1000;
    const times = data.load.map((_, step) => from + step * data.seconds);
    const axis = {
      stroke: colour("--soft"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line") },
      font: "12px system-ui",
    };
    const plot = new uPlot(
      {
        width: Math.max(280, holder.current.clientWidth),
        height: 220,
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"),
        scales: {
          ms: { range: (_, low, high) => [0, Math.max(1, high ?? 1) * 1.1] },
          load: { range: (_, low, high) => [0, Math.max(1, high ?? 1)] },
        },
        axes: [
          { ...axis, values: (_, all) => all.map((at) => clock(at * 1000)) },
          { ...axis, scale: "load", values: (_, all) => all.map((one) => `${Math.round(one * 100)} %`), size: 56 },
          {
            ...axis,
            side: 1,
            scale: "ms",
            values: (_, all) => all.map((one) => `${Math.round(one)} ms`),
            grid: { show: false },
            size: 68,
          },
        ],
        series: [
          { label: "UTC", value: (_, at) => (at == null ? "–" : clock(at * 1000)) },
          {
            label: "load",
            scale: "load",
            stroke: colour("--info"),
            fill: colour("--info-wash"),
            width: 1.5,
            value: (_, one) => (one == null ? "–" : `${Math.round(one * 100)} %`),
          },
          {
            label: "first token",
            scale: "ms",
            stroke: colour("--warn"),
            width: 1.5,
            value: (_, one) => (one == null ? "–" : `${one} ms`),
          },
        ],
      },
      [times, data.load.map((one) => (one == null ? null : one / 1000)), data.first_token_ms],
      holder.current,
    );
    const resized = new ResizeObserver(
      () => holder.current && plot.setSize({ width: Math.max(280, holder.current.clientWidth), height: 220 }),
    );
    resized.observe(holder.current);
    return () => {
      resized.disconnect();
      plot.destroy();
    };
  }, [data, dark]);
  const none = data && [...data.load, ...data.first_token_ms].every((one) => one == null);
  return html`<section class="card" aria-label="load and first token of ${region}">
    <h2><${Foreign} text=${region} /> <small>load and time to the first token</small></h2>
    ${problem && html`<p class="warn">${problem.message}</p>`}
    ${none && html`<p class="soft">Neither its load nor the time to its first token was known in this day.</p>`}
    <div
      class="plot"
      ref=${holder}
      role="img"
      aria-label="graph of load and time to the first token; the numbers are copied as CSV from /v1/timeline"
    ></div>
  </section>`;
}

/** For each region: how many minutes it was in each kind of trouble. */
const inTrouble = (regions) =>
  Object.entries(regions).map(([region, letters]) => ({
    key: region,
    region,
    ...Object.fromEntries(["x", "o", "f", "u"].map((letter) => [letter, (letters.split(letter).length - 1) * 5])),
  }));

export function Timeline({ argument, dark }) {
  const { events, missed } = useStore();
  const { data, problem } = useAnswer("/v1/timeline", EVERY);
  const [kind, setKind] = useState("all");
  const kinds = ["all", ...new Set(events.map((one) => one.kind))];
  const shown = events.filter((one) => kind === "all" || one.kind === kind);
  const rows = useMemo(() => inTrouble(data?.regions ?? {}), [data]);
  const minutes = (key, label) => ({
    key: WORDS[key].replace(" ", "_"),
    label: `${WORDS[key]}, min`,
    right: true,
    value: (row) => row[key],
  });
  const columns = [
    {
      key: "region",
      label: "Region",
      value: (row) => row.region,
      cell: (row) =>
        html`<a href="#/timeline/${encodeURIComponent(row.region)}"><${Foreign} text=${row.region} most=${60} /></a>`,
    },
    minutes("x"),
    minutes("o"),
    minutes("f"),
    minutes("u"),
  ];
  return html`
    ${problem && html`<p class="warn">${problem.message}</p>`}
    ${argument && html`<${Numbers} key=${argument} region=${argument} dark=${dark} />`}
    ${data && html`<${Bands} day=${data} chosen=${argument} />`}
    <section class="card" aria-label="events">
      <header>
        <h2>Events <small>${plural(shown.length, "change")}</small></h2>
        <select aria-label="kind of events" value=${kind} onChange=${(event) => setKind(event.target.value)}>
          ${kinds.map((one) => html`<option key=${one}>${one}</option>`)}
        </select>
      </header>
      ${missed > 0 && html`<p class="warn">${plural(missed, "event")} came and went before this page could read them.</p>`}
      <${EventList} events=${shown.slice(0, 200)} empty="Nothing changed since this node began." />
      ${events.length > 0 && html`<p class="soft">The oldest is of ${date(events.at(-1).at)}.</p>`}
    </section>
    <${Table}
      caption="Minutes in trouble"
      rows=${rows}
      columns=${columns}
      note="in the last 24 hours, rounded up to five minutes"
    />
  `;
}
