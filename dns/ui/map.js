// The map. Takes the world, where clients go, and flows; draws countries in the colour of their region, regions by
// status, and lines as wide as the queries that go along them.
import { geoEqualEarth, geoPath } from "d3-geo";
import { feature } from "topojson-client";
import { useMemo } from "preact/hooks";
import { html } from "./html.js";
import { country, plural, rate } from "./text.js";

const WIDTH = 960;
const HEIGHT = 452;
/** How many lines are drawn: the widest. */
const MOST_LINES = 60;
/** A client that is nearer to its region than this gets a ring instead of a line. */
const RING = 12;
/** How many colours there are. */
export const HUES = 8;
/** Up to so many regions, each has its name on the map. */
const MOST_NAMES = 14;

let drawn = null;

/** The shapes of countries, and the point of each; computed once. */
function shapes(world) {
  if (drawn) return drawn;
  const land = feature(world.map, world.map.objects.countries);
  land.features = land.features.filter((one) => one.id !== "AQ");
  const projection = geoEqualEarth().fitExtent(
    [
      [4, 4],
      [WIDTH - 4, HEIGHT - 4],
    ],
    land,
  );
  const path = geoPath(projection).digits(1);
  const countries = land.features.map((one) => ({ code: one.id, d: path(one) }));
  const has = new Set(countries.map((one) => one.code));
  const at = Object.fromEntries(
    Object.entries(world.points).map(([code, [lat, lon]]) => [code, projection([lon, lat])]),
  );
  const dots = Object.keys(at).filter((code) => !has.has(code) && code !== "AQ");
  drawn = { countries, dots, at, projection };
  return drawn;
}

/** A line from a client to a region, bent a little so that lines of opposite ways don't hide each other; a ring if the
 * client is where the region is. */
const bend = ([x1, y1], [x2, y2]) => {
  const [dx, dy] = [x2 - x1, y2 - y1];
  if (Math.hypot(dx, dy) < RING) return `M${(x2 - 9).toFixed(1)} ${y2.toFixed(1)}a9 9 0 1 0 18 0a9 9 0 1 0 -18 0`;
  const lift = Math.min(60, Math.hypot(dx, dy) * 0.22);
  return `M${x1.toFixed(1)} ${y1.toFixed(1)}Q${((x1 + x2) / 2).toFixed(1)} ${((y1 + y2) / 2 - lift).toFixed(1)} ${x2.toFixed(1)} ${y2.toFixed(1)}`;
};

/** Each region's colour: by its name's place among those that anybody goes to. */
export function hues(going, regions) {
  const used = new Set(going.flatMap((one) => one.groups.map((group) => group.to)));
  const names = regions.map((one) => one.region).filter((name) => used.has(name));
  return new Map(names.map((name, place) => [name, place % HUES]));
}

/** Where each country goes, by code. */
export const byCountry = (going) =>
  new Map(going.groups.flatMap((group) => group.countries.split(" ").map((code) => [code, group])));

/** What a mark of a region looks like: a word for it. */
export const look = (region) => {
  if (region.status === "down") return region.forced ? "forced" : "down";
  if (region.load != null && region.load >= (region.high ?? 1)) return "full";
  return region.status;
};

function middle(codes, at) {
  const points = (codes ?? []).map((code) => at[code]).filter(Boolean);
  if (points.length === 0) return null;
  return [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}

function lines(flows, edge, jurisdictions, places, at) {
  const all = [];
  for (const one of flows) {
    const [from, to] = [at[one.country], places.get(one.region)];
    if (from && to) all.push({ ...one, from, to, kind: one.source });
  }
  for (const one of edge) {
    const from = middle(jurisdictions[one.clients.split("+")[0]], at);
    const to = places.get(one.region);
    if (from && to)
      all.push({ from, to, rate: one.per_second, kind: "edge", country: one.clients, region: one.region });
  }
  all.sort((one, other) => other.rate - one.rate);
  const most = all[0]?.rate ?? 1;
  const isRing = (one) => Math.hypot(one.to[0] - one.from[0], one.to[1] - one.from[1]) < RING;
  const width = (one) => 0.7 + (isRing(one) ? 2 : 5) * Math.sqrt(one.rate / most);
  return all.slice(0, MOST_LINES).map((one) => ({ ...one, width: width(one) }));
}

const MARKS = { up: "●", unknown: "○", down: "✕", forced: "■", full: "▲" };

/** Where names of regions stand, so that they don't cover each other. */
function labels(regions, places) {
  const taken = [];
  const wanted =
    regions.length <= MOST_NAMES ? regions : regions.filter((one) => !["up", "unknown"].includes(look(one)));
  return wanted.slice(0, MOST_NAMES).flatMap((one) => {
    const point = places.get(one.region);
    if (!point) return [];
    const text = one.region.length > 18 ? `${one.region.slice(0, 17)}…` : one.region;
    const wide = text.length * 6.4 + 8;
    for (const [dx, dy, anchor] of [
      [8, 4, "start"],
      [-8, 4, "end"],
      [0, -10, "middle"],
      [0, 18, "middle"],
      [8, 18, "start"],
      [8, -10, "start"],
    ]) {
      const x = point[0] + dx - (anchor === "end" ? wide : anchor === "middle" ? wide / 2 : 0);
      const box = [x, point[1] + dy - 10, x + wide, point[1] + dy + 3];
      const hits = taken.some(
        (other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3],
      );
      if (hits || box[0] < 0 || box[2] > WIDTH) continue;
      taken.push(box);
      return [{ key: one.region, text, x: point[0] + dx, y: point[1] + dy, anchor, look: look(one) }];
    }
    return [];
  });
}

/** The mark of a region on the map. */
const regionMark = (one, point, count) =>
  point &&
  html`<g
    key=${one.region}
    class="region ${look(one)}"
    transform="translate(${point[0].toFixed(1)} ${point[1].toFixed(1)})"
  >
    <circle r=${count > 30 ? 3.4 : 5} />
    ${look(one) === "down" && html`<path d="M-2.5-2.5 2.5 2.5M2.5-2.5-2.5 2.5" />`}
  </g>`;

export function WorldMap({ world, going, regions, flows, edge, jurisdictions, colours, chosen }) {
  const { countries, dots, at, projection } = shapes(world);
  const goes = useMemo(() => byCountry(going), [going]);
  const places = new Map();
  for (const one of regions) {
    const point = one.latitude == null ? at[one.countries[0]] : projection([one.longitude, one.latitude]);
    if (point) places.set(one.region, point);
  }
  const paint = (code) => {
    const group = goes.get(code);
    const own = code === chosen ? " chosen" : "";
    if (!group) return `land${own}`;
    if (group.to != null) return `land hue-${colours.get(group.to) ?? 0}${own}`;
    return `land ${group.is_withheld ? "withheld" : "none"}${own}`;
  };
  // What looks as before isn't made again.
  const land = useMemo(
    () => countries.map((one, place) => html`<path key=${place} d=${one.d} class=${paint(one.code)} />`),
    [countries.map((one) => paint(one.code)).join()],
  );
  const marks = useMemo(
    () => regions.map((one) => regionMark(one, places.get(one.region), regions.length)),
    [regions.map((one) => `${one.region} ${look(one)} ${places.get(one.region)}`).join()],
  );
  const drawnLines = lines(flows, edge, jurisdictions, places, at);
  const wrong = regions.filter((one) => ["down", "forced", "full"].includes(look(one)));
  const about =
    `Map of where clients of ${going.service} go. ` +
    `${plural(regions.length, "region")}, ${
      wrong.length === 0
        ? "none down or full"
        : wrong
            .map((one) => `${one.region} ${look(one)}`)
            .slice(0, 8)
            .join(", ")
    }. ` +
    `${plural(drawnLines.length, "flow")} drawn. The table “Who goes where” tells the same.`;
  return html`<svg class="world" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${about}>
    <defs>
      <pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect width="6" height="6" class="hatch-ground" />
        <rect width="2.5" height="6" class="hatch-line" />
      </pattern>
    </defs>
    <g>${land}</g>
    <g>
      ${dots.map((code) => goes.has(code) && html`<circle key=${code} cx=${at[code][0].toFixed(1)} cy=${at[code][1].toFixed(1)} r=${code === chosen ? 5 : 2.2} class=${paint(code)} />`)}
    </g>
    <g class="flows">
      ${drawnLines.map(
        (one) =>
          html`<path
            key=${`${one.kind} ${one.country} ${one.region} ${one.service}`}
            d=${bend(one.from, one.to)}
            class="flow ${one.kind}"
            stroke-width=${one.width.toFixed(1)}
          />`,
      )}
    </g>
    <g>${marks}</g>
    <g class="names">
      ${labels(regions, places).map(
        (one) =>
          html`<text
            key=${one.key}
            x=${one.x.toFixed(1)}
            y=${one.y.toFixed(1)}
            text-anchor=${one.anchor}
            class=${one.look}
            >${one.text}</text
          >`,
      )}
    </g>
  </svg>`;
}

/** What colours and lines mean. */
export function Legend({ going, colours, flows, edge, missing, leftOut }) {
  const shown = [...colours].filter(([name]) => going.groups.some((group) => group.to === name));
  const kinds = new Set(flows.map((one) => one.source));
  const sum = (kind) => rate(flows.filter((one) => one.source === kind).reduce((all, one) => all + one.rate, 0));
  return html`<ul class="legend" aria-label="what colours and lines mean">
    ${shown
      .slice(0, 10)
      .map(
        ([name, hue]) =>
          html`<li key=${name}><span class="chip hue-${hue}" aria-hidden="true"></span><bdi>${name}</bdi></li>`,
      )}
    ${shown.length > 10 && html`<li class="soft">and ${shown.length - 10} more; colours repeat</li>`}
    ${
      going.groups.some((group) => group.to == null && group.is_withheld) &&
      html`<li><span class="chip withheld" aria-hidden="true"></span>all of the fence is withheld</li>`
    }
    ${
      going.groups.some((group) => group.to == null && !group.is_withheld) &&
      html`<li><span class="chip none" aria-hidden="true"></span>no region allowed</li>`
    }
    ${kinds.has("ecs") && html`<li><span class="line ecs" aria-hidden="true"></span>placed by subnet, ${sum("ecs")}/s</li>`}
    ${
      kinds.has("resolver") &&
      html`<li><span class="line resolver" aria-hidden="true"></span>placed by resolver, ${sum("resolver")}/s</li>`
    }
    ${
      edge.length > 0 &&
      html`<li>
        <span class="line edge" aria-hidden="true"></span>requests at the edge,
        ${rate(edge.reduce((all, one) => all + one.per_second, 0))}/s
      </li>`
    }
    ${leftOut > 0 && html`<li class="soft">without ${plural(leftOut, "smaller flow")}</li>`}
    ${missing > 0 && html`<li class="warn">without the queries of ${plural(missing, "node")} that gave no answer</li>`}
  </ul>`;
}

export const mark = (kind) => html`<span class="mark ${kind}" aria-hidden="true">${MARKS[kind]}</span>`;

/** The countries of a group in words. */
export const inWords = (codes, most) => {
  const all = codes.split(" ");
  const names = all.slice(0, most).map(country);
  return all.length > most ? `${names.join(", ")} and ${all.length - most} more` : names.join(", ");
};
