// What the page knows. Asks for the picture every few seconds, follows events, and tells who shows them.
import { useEffect, useState } from "preact/hooks";
import { follow, get, hasToken, query, setToken } from "./api.js";

/** How many events are kept. */
const MOST_EVENTS = 2000;
/** How often the fleet's queries are added up. */
const TRAFFIC_EVERY = 30_000;
/** How many seconds of queries are added up. */
const SPAN = 600;
/** A picture that is older than so many milliseconds isn't the present. */
const OLD = 15_000;
/** After so many milliseconds the page is shown again although nothing came: the age of things goes on. */
const SHOWN_EVERY = 4000;
/** A page that was hidden has so many milliseconds to ask again before it calls the node silent. */
const RETURN = 2000;

export const state = {
  picture: null,
  /** When the picture arrived, by this browser's clock. */
  arrived: 0,
  /** By how much the node's clock is ahead of this browser's, in milliseconds. */
  ahead: 0,
  events: [],
  missed: 0,
  live: false,
  problem: null,
  needsToken: false,
  /** What is wrong with the token that was typed in, and how often that was said. */
  refusal: null,
  refusals: 0,
  /** The countries of each jurisdiction, by name. */
  jurisdictions: {},
  /** Queries of all nodes, where there are several. */
  traffic: null,
  world: null,
};

const watchers = new Set();
let pending = false;
/** When the state was shown last, and when the page became visible last. */
let drawn = 0;
let returned = 0;

/** While somebody scrolls nothing is shown again, but for so many milliseconds at most. */
const SCROLLING = 2000;
/** Who hasn't scrolled for so many milliseconds has done so. */
const RESTS = 150;
let scrolled = 0;
const scrolling = () => {
  scrolled = Date.now();
};
addEventListener("scroll", scrolling, { passive: true, capture: true });

/** Changes the state and shows it a little later, with what else changes until then. */
export function set(change) {
  Object.assign(state, change);
  if (pending) return;
  pending = true;
  const begun = Date.now();
  const draw = () => {
    const now = Date.now();
    if (now - scrolled < RESTS && now - begun < SCROLLING) return setTimeout(draw, RESTS / 3);
    pending = false;
    drawn = now;
    for (const watcher of watchers) watcher();
    return undefined;
  };
  setTimeout(draw, 30);
}

/** The state, shown again whenever it changes. */
export function useStore() {
  const [, show] = useState(0);
  useEffect(() => {
    const watcher = () => show((count) => count + 1);
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }, []);
  return state;
}

/** Calls `ask` now, and again `every` so many milliseconds after it is done, while the page is shown: nobody looks at a
 * hidden one. Returns how to stop it. */
function whileShown(ask, every) {
  let [timer, isBusy, isStopped] = [0, false, false];
  const turn = async () => {
    clearTimeout(timer);
    if (isBusy || isStopped || document.hidden) return;
    isBusy = true;
    await ask();
    isBusy = false;
    if (!isStopped) timer = setTimeout(turn, typeof every === "function" ? every() : every);
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return () => {
    isStopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", turn);
  };
}

/** What a path answers: `{ data, problem, at }`, or nothing yet. Asked again when the path or `turn` changes, and every
 * `every` milliseconds. */
export function useAnswer(path, every = 0, turn = 0) {
  const [answer, setAnswer] = useState({ path: null });
  useEffect(() => {
    if (path === null) return undefined;
    const left = new AbortController();
    const ask = () =>
      get(path, left.signal).then(
        (data) => setAnswer({ path, turn, data, at: nodeTime() }),
        (problem) => left.signal.aborted || setAnswer({ path, turn, problem, at: nodeTime() }),
      );
    const stop = every > 0 ? whileShown(ask, every) : ask() && null;
    return () => {
      left.abort();
      stop?.();
    };
  }, [path, every, turn]);
  return answer.path === path && answer.turn === turn ? answer : {};
}

/** The node's time now. */
export const nodeTime = () => Date.now() + state.ahead;

/** Whether the node has been silent for too long for what is shown to be the present. */
export const isSilent = () => Date.now() - Math.max(state.arrived, returned - OLD + RETURN) > OLD;

let [revision, asked, shownLast] = [null, 0, 0];

/** Asks for the picture. Of two questions that overlap, the later one's answer is shown. */
async function look() {
  asked += 1;
  const own = asked;
  try {
    const picture = await get("/v1/picture");
    if (own < shownLast) return;
    shownLast = own;
    const arrived = Date.now();
    const ahead = Date.parse(picture.now) - arrived;
    set({ picture, arrived, ahead, problem: null, needsToken: false, refusal: null });
    await learnJurisdictions(picture);
  } catch (problem) {
    if (own < shownLast) return;
    set({ problem, needsToken: problem.status === 401 || problem.status === 403 });
  }
}

/** Where requests at the edge are drawn from. */
async function learnJurisdictions({ jurisdictions, rules_sha256, edge }) {
  const byName = (all) => Object.fromEntries(all.map((one) => [one.name, one.countries]));
  if (jurisdictions?.every((one) => one.countries)) return set({ jurisdictions: byName(jurisdictions) });
  if (revision === rules_sha256 || edge.length === 0) return undefined;
  const explained = await get("/v1/explain?all=true").catch(() => null);
  if (explained === null) return undefined;
  revision = rules_sha256;
  return set({ jurisdictions: byName(explained.jurisdictions) });
}

/** Asks for the queries of all nodes, where there are several. */
async function addTraffic() {
  if (!(state.picture?.peers.length > 0)) return set({ traffic: null });
  const picture = await get(query("/v1/picture", { fleet: "true" })).catch(() => null);
  const sum = picture?.fleet_traffic;
  // Its first sum isn't made yet.
  if (sum === null) return undefined;
  if (sum) return set({ traffic: { ...sum, seconds: sum.seconds ?? SPAN } });
  // A node of an older version adds them up at another path.
  const old = await get(query("/v1/traffic", { since: "10m", fleet: "true" })).catch(() => null);
  if (old === null) return set({ traffic: null });
  const seconds = Math.max(1, (Date.parse(old.until) - Date.parse(old.from ?? old.until)) / 1000);
  return set({ traffic: { flows: old.counts, seconds, missing: old.missing, left_out: 0 } });
}

function note(kind, event) {
  if (kind === "missed") return set({ missed: state.missed + event.events });
  if (kind !== "change") return undefined;
  const events = [event, ...state.events.filter((one) => one.id !== event.id || one.at !== event.at)];
  events.sort((one, other) => other.at.localeCompare(one.at) || other.id - one.id);
  events.length = Math.min(events.length, MOST_EVENTS);
  set({ events });
  return soon();
}

let soonTimer = 0;
/** Something changed, so that the picture is old. A large one is asked for more rarely: it takes longer to show. */
function soon() {
  soonTimer ||= setTimeout(
    () => {
      soonTimer = 0;
      if (!document.hidden) look();
    },
    isLarge() ? 2000 : 250,
  );
}

/** Whether the picture has so many regions that it is asked for more rarely. */
const isLarge = () => (state.picture?.regions.length ?? 0) > 200;

let isStarted = false;

/** Says once more what is wrong with the token that was typed in. */
const refuse = (refusal) => set({ refusal, refusals: state.refusals + 1 });

/** Begins to ask, with a token if one was typed in. */
export async function start(typed) {
  if (typed !== undefined) {
    set({ refusal: null });
    const fault = setToken(typed);
    if (fault) return refuse(fault);
  }
  await look();
  if (state.needsToken && hasToken()) refuse(`The node refuses this token. It says: ${state.problem.message}`);
  if (isStarted || state.needsToken) return undefined;
  isStarted = true;
  document.addEventListener("visibilitychange", () => {
    returned = Date.now();
  });
  // Without a token that is good, asking again is in vain.
  const may = () => !state.needsToken;
  follow(note, (live) => set({ live }), may);
  const ask = () => (may() ? look() : undefined);
  whileShown(ask, () => (isLarge() ? 5000 : 2000));
  whileShown(addTraffic, () => (state.traffic === null && state.picture?.peers.length > 0 ? 5000 : TRAFFIC_EVERY));
  whileShown(() => Date.now() - drawn < SHOWN_EVERY || set({}), SHOWN_EVERY / 4);
  whileShown(drawWorld, TRAFFIC_EVERY);
  return undefined;
}

/** Asks for the shapes of countries until it has them. */
async function drawWorld() {
  if (state.world === null) set({ world: await get(WORLD).catch(() => null) });
}
