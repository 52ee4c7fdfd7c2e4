// The first screen: is anything outside its fence, what is down, full, stale, skewed, moving; who goes where; what
// changed. Takes the state.
import { useState } from "preact/hooks";
import { Standing } from "./drills.js";
import { html } from "./html.js";
import { Legend, WorldMap, byCountry, hues, inWords, look, mark } from "./map.js";
import { isSilent, nodeTime, useStore } from "./store.js";
import { Table } from "./table.js";
import { Foreign, age, ago, clock, count, country, left, percent, plural, rate, span } from "./text.js";

const HOUR = 3_600_000;
/** What the node says of a region without a monitor. */
const UNWATCHED = "not watched";
/** A check that is older than this says little: one is made each minute. */
const OLD_CHECK = 180_000;
/** Where clients go is told with its age if it is older than so many milliseconds. The node looks every five seconds, or
 * more rarely where that takes long. */
const OLD_GOING = 12_000;

/** Queries a second by country and region, of all nodes if they were asked. */
export function flowsOf({ picture, traffic }) {
  const { seconds, flows } = picture.flows;
  const [all, span] = traffic ? [traffic.flows, traffic.seconds] : [flows, seconds];
  return all.map((one) => ({ ...one, rate: one.queries / span }));
}

/** One answer: a number, what it counts, and which ones. */
function Tile({ tone, number, label, children, link }) {
  const quiet = number === 0 && tone !== "good";
  return html`<li class="tile ${quiet ? "quiet" : tone}">
    <p class="number">${number}</p>
    <p class="label">${link ? html`<a href=${link}>${label}</a>` : label}</p>
    <div class="details">${children}</div>
  </li>`;
}

/** The first few, and how many more. */
const Few = ({ all, most = 3 }) =>
  html`<ul class="few">
    ${all.slice(0, most).map((one) => html`<li>${one}</li>`)}
    ${all.length > most && html`<li class="soft">and ${all.length - most} more</li>`}
  </ul>`;

function Fences({ checked, services }) {
  if (services === 0) {
    return html`<${Tile} tone="plain" number="–" label="fence violations"
      >The rules have no service, so there is nothing to check.<//
    >`;
  }
  if (!checked) return html`<${Tile} tone="plain" number="…" label="fence violations">Not checked yet.<//>`;
  const { violations, given } = checked;
  const outside = given?.outside ?? 0;
  const who = `${plural(checked.services, "service")} × ${count(checked.countries - 1)} countries and unknown places`;
  const tenants = checked.tenants > 0 ? `, ${plural(checked.tenants, "tenant")}` : "";
  const what = html`<p>
    ${`${ago(checked.at)}: ${plural(checked.decisions, "decision")} of revision ${checked.revision} (${who}${tenants}) `}
    ${`and ${plural(checked.answers, "ready DNS answer")} compared with the document.`}
  </p>`;
  const late =
    nodeTime() - Date.parse(checked.at) > OLD_CHECK && html`<p class="warn">The check is ${age(checked.at)} old.</p>`;
  const served =
    given &&
    html`<p>
      ${plural(given.queries, "DNS answer")} since ${clock(given.since)} UTC, ${outside === 0 ? "none" : count(outside)}
      outside.
    </p>`;
  const listed = checked.listed.map((one) => html`<bdi>${one.service}</bdi>: ${one.client} → <bdi>${one.region}</bdi>`);
  return html`<${Tile}
    tone=${violations + outside > 0 ? "bad" : isSilent() ? "plain" : "good"}
    number=${violations + outside}
    label="fence violations"
  >
    ${listed.length > 0 && html`<${Few} all=${listed} />`}${what}${served}${late}
    ${checked.left_out > 0 && html`<p class="warn">${plural(checked.left_out, "decision")} of tenants left out.</p>`}
  <//>`;
}

const said = (one) =>
  html`<b><${Foreign} text=${one.region} most=${40} /></b>:
    <${Foreign} text=${one.failure && !one.forced ? `${one.why}: ${one.failure}` : one.why} most=${90} />`;

function Tiles({ picture }) {
  const { regions, checked, going, overrides, moves, rollouts, peers } = picture;
  const drills = picture.drill?.is_running ? [picture.drill] : [];
  const down = regions.filter((one) => one.status === "down");
  const unwatched = regions.filter((one) => one.why === UNWATCHED).length;
  const full = regions.filter((one) => look(one) === "full");
  const stale = picture.replicas.filter((one) => ["lagging", "unknown"].includes(one.freshness));
  const skewed = picture.skew.filter((one) => one.is_skewed);
  const held = regions.filter((one) => one.fleet?.held_by === "guard");
  const unheard = peers.filter((one) => one.trouble != null);
  const going_on = rollouts.filter((one) => !one.says.startsWith("hasn't begun") && !one.says.includes("; ended"));
  return html`<ul class="tiles" aria-label="state of everything">
    <${Fences} checked=${checked} services=${picture.services?.length ?? going.length} />
    <${Tile} tone="bad" number=${down.length} label=${down.length === 1 ? "region down" : "regions down"}>
      ${down.length > 0 ? html`<${Few} all=${down.map(said)} />` : html`<p>of ${plural(regions.length, "region")}${unwatched > 0 ? `; ${unwatched} not watched` : ""}</p>`}
    <//>
    <${Tile} tone="warn" number=${full.length} label="full">
      ${
        full.length > 0
          ? html`<${Few}
              all=${full.map((one) => html`<${Foreign} text=${one.region} most=${40} /> ${percent(one.load)} <span class="soft">mark ${percent(one.high ?? 1)}</span>`)}
            />`
          : html`<p>
              ${regions.some((one) => one.load != null) ? `highest load ${percent(Math.max(...regions.map((one) => one.load ?? 0)))}` : "no load is read"}
            </p>`
      }
    <//>
    <${Tile} tone="warn" number=${stale.length} label=${stale.length === 1 ? "stale copy" : "stale copies"}>
      ${stale.length > 0 && html`<${Few} all=${stale.map((one) => html`<bdi>${one.region}/${one.replica}</bdi> <span class="soft">${one.freshness}${one.lag ? ` by ${one.lag}` : ""}</span>`)} />`}
      ${stale.length === 0 && html`<p>${picture.replicas.length === 0 ? "no replica is read" : `of ${plural(picture.replicas.length, "copy", "copies")}`}</p>`}
    <//>
    <${Tile} tone="warn" number=${skewed.length} label="skewed">
      ${skewed.length > 0 && html`<${Few} all=${skewed.map((one) => html`<bdi>${one.region}/${one.endpoint}</bdi> <span class="soft"><${Foreign} text=${`${one.model}: ${one.differs.join(", ")}`} most=${60} /></span>`)} />`}
      ${skewed.length === 0 && html`<p>${picture.skew.length === 0 ? "no release is read" : `of ${plural(picture.skew.length, "endpoint")}`}</p>`}
    <//>
    <${Tile} tone="info" number=${moves.length + going_on.length + drills.length} label="moving">
      <${Few}
        all=${[
          ...drills.map(
            (one) =>
              html`<a href="#/drills">drill <bdi>${one.drill}</bdi></a
                >: <${Standing} drill=${one} />`,
          ),
          ...moves.map((one) => html`${percent(one.share)} of <bdi>${one.from}</bdi> → <bdi>${one.to}</bdi>`),
          ...going_on.map(
            (one) =>
              html`<a href="#/rollouts">rollout <bdi>${one.rollout}</bdi></a>
                <span class="soft"><${Foreign} text=${one.says} most=${60} /></span>`,
          ),
        ]}
      />
      ${moves.length + going_on.length + drills.length === 0 && html`<p>no share, no rollout, no drill</p>`}
    <//>
    <${Tile} tone="info" number=${overrides.length + held.length} label="held by hand or guard">
      <${Few}
        all=${[
          ...overrides.map(
            (one) =>
              html`<${Foreign} text=${one.of} most=${40} /> ${one.status}
                <span class="soft">${left(one.until)} more: <${Foreign} text=${one.reason} most=${60} /></span>`,
          ),
          ...held.map((one) => html`<bdi>${one.region}</bdi> <span class="soft">offered by the guard</span>`),
        ]}
      />
      ${overrides.length + held.length === 0 && html`<p>no override</p>`}
    <//>
    <${Tile}
      tone="warn"
      number=${unheard.length}
      label=${unheard.length === 1 ? "node unheard" : "nodes unheard"}
      link="#/nodes"
    >
      ${unheard.length > 0 && html`<${Few} all=${unheard.map((one) => html`<${Foreign} text=${one.node ?? one.url} most=${40} /> <span class="soft"><${Foreign} text=${one.trouble} most=${60} /></span>`)} />`}
      ${unheard.length === 0 && html`<p>${peers.length === 0 ? "this node alone" : `of ${plural(peers.length, "other node")}`}</p>`}
    <//>
  </ul>`;
}

/** For how many services it is told where a country goes. */
const SERVICES = 6;
/** How many of the busiest countries are told beside the one that is asked about. */
const BUSIEST = 4;

/** The countries that most queries come from. */
function busiest(flows) {
  const rates = new Map();
  for (const one of flows) if (one.country) rates.set(one.country, (rates.get(one.country) ?? 0) + one.rate);
  return [...rates].sort((one, other) => other[1] - one[1]);
}

function Answer({ going, code, picture }) {
  const { moves, regions } = picture;
  const group = byCountry(going).get(code);
  if (!group) return html`<p class="answer soft">nothing is decided for it</p>`;
  if (group.to == null) {
    return html`<p class="answer">
      ${group.is_withheld ? "nowhere: all of its fence is withheld" : "nowhere: no region is allowed"}
    </p>`;
  }
  const moved = moves.filter((one) => one.from === group.to);
  const region = regions.find((one) => one.region === group.to);
  return html`<p class="answer">
    ${region && mark(look(region))} <${Foreign} text=${group.to} most=${60} />
    ${
      region?.status === "down" &&
      html`<small>
        is down${group.is_revived && ", and offered all the same: nothing else is left in the fence"}</small
      >`
    }
    ${moved.length > 0 && html`<small> of which ${moved.slice(0, 3).map((one, place) => html`${place > 0 ? ", " : ""}${percent(one.share)} moved to <bdi>${one.to}</bdi>`)}</small>`}
  </p>`;
}

/** Where do people of this country go? */
function Finder({ all, flows, picture, chosen, choose }) {
  const goes = byCountry(all[0]);
  const code = chosen ?? "DE";
  const others = busiest(flows)
    .filter(([other]) => other !== code && goes.has(other))
    .slice(0, BUSIEST);
  const codes = [...goes.keys()]
    .filter((one) => one !== "unknown")
    .sort((one, other) => country(one).localeCompare(country(other)));
  const at = picture.going_at;
  const isAged = at != null && nodeTime() - Date.parse(at) > OLD_GOING;
  const leftOut = Math.max(0, all.length - SERVICES) + (picture.going_left_out ?? 0);
  const sum = flows.filter((one) => one.country === code).reduce((rates, one) => rates + one.rate, 0);
  return html`<section class="card finder" aria-label="where a country goes">
    <h2>
      <label for="of">Where does</label>
      <select id="of" value=${code} onChange=${(event) => choose(event.target.value)}>
        ${codes.map((one) => html`<option key=${one} value=${one}>${country(one)}</option>`)}
        <option value="unknown">an unknown place</option>
      </select>
      go?
    </h2>
    <dl>
      ${all.slice(0, SERVICES).map(
        (going) =>
          html`<div key=${going.service}>
            <dt><${Foreign} text=${going.service} most=${40} /></dt>
            <dd><${Answer} going=${going} code=${code} picture=${picture} /></dd>
          </div>`,
      )}
    </dl>
    ${
      others.length > 0 &&
      html`<dl class="others" aria-label="the busiest countries, ${all[0].service}">
        ${others.map(
          ([other, queries]) =>
            html`<div key=${other}>
              <dt>${country(other)} <small>${rate(queries)}/s</small></dt>
              <dd><${Foreign} text=${goes.get(other).to ?? "nowhere"} most=${60} /></dd>
            </div>`,
        )}
      </dl>`
    }
    ${isAged && html`<p class="soft aged">As decided ${ago(at)}.</p>`}
    ${leftOut > 0 && html`<p class="soft">${plural(leftOut, "more service")}: <a href="#/ask">ask for one</a>.</p>`}
    <p class="soft">
      ${sum > 0 ? `${rate(sum)} queries a second now. ` : ""}By country;
      <a href="#/ask">ask for an address or a tenant</a>.
    </p>
  </section>`;
}

export function EventList({ events, empty }) {
  if (events.length === 0) return html`<p class="soft">${empty}</p>`;
  return html`<ol class="events">
    ${events.map(
      (one) =>
        html`<li key=${`${one.at} ${one.id}`} class=${one.tone}>
          <time datetime=${one.at} title=${one.at}>${clock(one.at)}</time>
          <span
            ><b><${Foreign} text=${one.of} most=${60} /></b>
            <${Foreign} text=${one.says} />
            ${one.by && html`<span class="soft"><${Foreign} text=${one.by} /></span>`}</span
          >
        </li>`,
    )}
  </ol>`;
}

function LastHour({ events, begun, live }) {
  const since = nodeTime() - HOUR;
  const recent = events.filter((one) => Date.parse(one.at) > since);
  const young = Date.parse(begun) > since;
  return html`<section class="card" aria-label="what changed in the last hour">
    <h2>Last hour <small>${plural(recent.length, "change")}</small></h2>
    <${EventList} events=${recent.slice(0, 7)} empty="Nothing changed." />
    <p class="soft">
      ${young ? `This node has looked for ${span(nodeTime() - Date.parse(begun))}. ` : ""}${live ? "" : "No live events now. "}<a
        href="#/timeline"
        >the whole day</a
      >
    </p>
  </section>`;
}

/** Load as a bar with its marks. */
function Load({ region }) {
  if (region.load == null) return html`<span class="soft">${region.load_missing > 0 ? "unread" : "–"}</span>`;
  const wide = (value) => Math.min(100, value * 100).toFixed(1);
  return html`<span class="load">
    <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect class="rail" width="100" height="10" />
      <rect class="fill ${look(region)}" width=${wide(region.load)} height="10" />
      ${region.low != null && html`<path class="at" d="M${wide(region.low)} 0V10" />`}
      ${region.high != null && html`<path class="at" d="M${wide(region.high)} 0V10" />`}
    </svg>
    ${percent(region.load)}
  </span>`;
}

const ORDER = ["down", "forced", "full", "unknown", "up"];
const worst = (region) => ORDER.indexOf(look(region)) * 10 - (region.fleet?.held_by === "guard" ? 5 : 0);
const WORDS = { up: "up", down: "down", forced: "forced down", full: "full", unknown: "unknown" };
const HELD = { quorum: "most sites", guard: "guard", override: "operator", none: "last agreed" };

export const held = (region) => HELD[region.fleet?.held_by] ?? (region.forced ? "operator" : "this node");

const votes = ({ fleet }) =>
  fleet &&
  [
    ["up", "up"],
    ["down", "down"],
    ["unknown", "unsure"],
    ["silent", "silent"],
  ]
    .filter(([key]) => fleet.votes[key] > 0)
    .map(([key, word]) => `${fleet.votes[key]} ${word}`)
    .join(", ");

function quotaLeft(region, quotas) {
  const shares = quotas
    .filter((one) => region.quotas.includes(one.quota))
    .flatMap((one) => [
      one.requests_left != null && one.requests ? one.requests_left / one.requests : null,
      one.tokens_left != null && one.tokens ? one.tokens_left / one.tokens : null,
    ]);
  const known = shares.filter((one) => one != null);
  return known.length > 0 ? Math.min(...known) : null;
}

export function columnsOf(picture, flows) {
  const perRegion = new Map();
  for (const one of flows) perRegion.set(one.region, (perRegion.get(one.region) ?? 0) + one.rate);
  const edge = new Map();
  for (const one of picture.edge) edge.set(one.region, (edge.get(one.region) ?? 0) + one.per_second);
  const of = (list, name) => list.filter((one) => one.region === name);
  const lag = (one) =>
    of(picture.replicas, one.region)
      .map((copy) => `${copy.replica} ${copy.freshness}${copy.lag ? ` ${copy.lag}` : ""}`)
      .join(", ");
  const release = (one) =>
    [...new Set(of(picture.skew, one.region).map((each) => `${each.model} ${each.state}`))].join(", ");
  const columns = [
    {
      key: "region",
      label: "Region",
      value: (one) => one.region,
      cell: (one) =>
        html`<a class="name" href="#/timeline/${encodeURIComponent(one.region)}"
          ><${Foreign} text=${one.region} most=${60}
        /></a>`,
    },
    {
      key: "verdict",
      label: "Verdict",
      value: worst,
      cell: (one) =>
        html`<span class="verdict ${look(one)}"
          >${mark(look(one))} ${look(one) === "unknown" && one.why === UNWATCHED ? "unwatched" : WORDS[look(one)]}</span
        >`,
    },
    { key: "held_by", label: "Held by", value: held },
    { key: "votes", label: "Votes", value: votes },
    { key: "load", label: "Load", value: (one) => one.load, cell: (one) => html`<${Load} region=${one} />` },
    {
      key: "queries",
      label: "DNS/s",
      right: true,
      value: (one) => perRegion.get(one.region) ?? 0,
      cell: (one) => rate(perRegion.get(one.region) ?? 0),
    },
    {
      key: "requests",
      label: "Edge/s",
      right: true,
      value: (one) => edge.get(one.region) ?? null,
      cell: (one) => (edge.has(one.region) ? rate(edge.get(one.region)) : "–"),
    },
    {
      key: "first_token_ms",
      label: "First token",
      right: true,
      value: (one) => one.first_token_ms,
      cell: (one) => (one.first_token_ms == null ? "–" : `${count(one.first_token_ms)} ms`),
    },
    {
      key: "quota_left",
      label: "Quota left",
      right: true,
      value: (one) => quotaLeft(one, picture.quotas),
      cell: (one) => percent(quotaLeft(one, picture.quotas)),
    },
    { key: "replicas", label: "Replicas", value: lag },
    { key: "releases", label: "Releases", value: release },
    {
      key: "ttl",
      label: "TTL",
      right: true,
      value: (one) => one.ttl?.[0] ?? null,
      cell: (one) => (one.ttl ? `${one.ttl[0] === one.ttl[1] ? one.ttl[0] : `${one.ttl[0]}–${one.ttl[1]}`} s` : "–"),
    },
    {
      key: "why",
      label: "Why",
      value: (one) => one.why,
      cell: (one) =>
        html`<span class="why"
          ><${Foreign}
            text=${one.why}
            most=${110}
          />${one.failure && one.status === "down" && html`<span class="soft"> <${Foreign} text=${one.failure} most=${90} /></span>`}</span
        >`,
    },
  ];
  // What no region has isn't shown.
  const always = new Set(["region", "verdict", "held_by", "why", "load", "ttl", "queries"]);
  const has = (column) =>
    always.has(column.key) || picture.regions.some((one) => ![null, undefined, ""].includes(column.value(one)));
  return columns
    .filter(has)
    .map((column) =>
      ["replicas", "releases"].includes(column.key)
        ? { ...column, cell: (one) => html`<${Foreign} text=${column.value(one) || "–"} most=${60} />` }
        : column,
    );
}

export function Now() {
  const state = useStore();
  const { picture, events, live, world, jurisdictions } = state;
  const [service, setService] = useState(null);
  const [chosen, choose] = useState(null);
  const flows = flowsOf(state);
  const going = picture.going.find((one) => one.service === service) ?? picture.going[0];
  const ofService = flows.filter((one) => one.service === going?.service);
  const colours = hues(picture.going, picture.regions);
  const regions = picture.regions.map((one) => ({ ...one, key: one.region, tone: look(one) }));
  const troubles = [
    ...picture.troubles,
    ...picture.sources.flatMap((one) => one.errors.map((error) => `${one.source} refused: ${error}`)),
  ];
  return html`
    ${
      troubles.length > 0 &&
      html`<ul class="troubles" aria-label="troubles of this node">
        ${troubles.slice(0, 4).map((one) => html`<li><${Foreign} text=${one} most=${240} /></li>`)}
      </ul>`
    }
    <${Tiles} picture=${picture} />
    ${
      going
        ? html`<div class="split">
            <section class="card mapped" aria-label="map">
              <header>
                <h2>Who goes where</h2>
                ${
                  picture.going.length > 1 &&
                  html`<select
                    aria-label="service on the map"
                    value=${going.service}
                    onChange=${(event) => setService(event.target.value)}
                  >
                    ${picture.going.map((one) => html`<option key=${one.service} value=${one.service}>${one.service}</option>`)}
                  </select>`
                }
              </header>
              ${
                picture.going_left_out > 0 &&
                html`<p class="warn">
                  The map and its table leave out ${plural(picture.going_left_out, "service")}.
                  <a href="#/ask">Ask for one of them.</a>
                </p>`
              }
              ${world ? html`<${WorldMap} ...${{ world, going, regions, flows: ofService, edge: picture.edge, jurisdictions, colours, chosen }} />` : html`<div class="world"></div>`}
              <${Legend}
                going=${going}
                colours=${colours}
                flows=${ofService}
                edge=${picture.edge}
                missing=${state.traffic?.missing.length ?? 0}
                leftOut=${(state.traffic ?? picture.flows).left_out}
              />
            </section>
            <div class="side">
              <${Finder}
                all=${[going, ...picture.going.filter((one) => one !== going)]}
                flows=${flows}
                picture=${picture}
                chosen=${chosen}
                choose=${choose}
              />
              <${LastHour} events=${events} begun=${picture.begun} live=${live && !isSilent()} />
            </div>
          </div>`
        : html`<section class="card blank">
              <h2>Nothing is steered yet</h2>
              <p>
                The rules (revision ${picture.revision}) name no service. <code>bailiwick init</code> writes an example;
                once rules with a service are in service, this page shows who goes where.
              </p>
            </section>
            <${LastHour} events=${events} begun=${picture.begun} live=${live && !isSilent()} />`
    }
    ${regions.length > 0 && html`<${Table} caption="Regions" start="verdict" rows=${regions} columns=${columnsOf(picture, flows)} />`}
    ${going && html`<${Who} picture=${picture} flows=${flows} />`}
  `;
}

/** The map as a table. */
function Who({ picture, flows }) {
  const rows = picture.going.flatMap((going) =>
    going.groups.map((group) => {
      const codes = new Set(group.countries.split(" "));
      const sum = flows
        .filter((one) => one.service === going.service && codes.has(one.country ?? "unknown"))
        .reduce((all, one) => all + one.rate, 0);
      const to = group.to ?? (group.is_withheld ? "nowhere: withheld" : "nowhere: not allowed");
      return {
        key: `${going.service} ${to}`,
        service: going.service,
        to,
        countries: group.countries,
        number: codes.size,
        sum,
      };
    }),
  );
  const columns = [
    {
      key: "service",
      label: "Service",
      value: (one) => one.service,
      cell: (one) => html`<${Foreign} text=${one.service} most=${60} />`,
    },
    {
      key: "to",
      label: "Goes to",
      value: (one) => one.to,
      cell: (one) => html`<b><${Foreign} text=${one.to} most=${60} /></b>`,
    },
    { key: "number", label: "Places", right: true, value: (one) => one.number },
    { key: "queries", label: "DNS/s", right: true, value: (one) => one.sum, cell: (one) => rate(one.sum) },
    {
      key: "countries",
      label: "From",
      value: (one) => one.countries,
      cell: (one) => html`<span class="why" title=${one.countries}>${inWords(one.countries, 14)}</span>`,
    },
  ];
  return html`<${Table}
    caption="Who goes where"
    start="service"
    rows=${rows}
    columns=${columns}
    note="by country, before any share is moved because of load"
  />`;
}
