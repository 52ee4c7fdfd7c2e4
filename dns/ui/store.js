// What the page knows. Asks for the picture every few seconds, follows events, and tells who shows them.
import { useEffect, useState } from "preact/hooks";
import { follow, get, query, setToken } from "./api.js";

/** How many events are kept. */
const MOST_EVENTS = 2000;
/** How often the fleet's queries are added up. */
const TRAFFIC_EVERY = 30_000;

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
  jurisdictions: {},
  /** Queries of all nodes, where there are several. */
  traffic: null,
  world: null,
};

const watchers = new Set();
let pending = false;

/** Changes the state and shows it, at most once a frame. */
export function set(change) {
  Object.assign(state, change);
  if (pending) return;
  pending = true;
  setTimeout(() => {
    pending = false;
    for (const watcher of watchers) watcher();
  }, 30);
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

/** What a path answers: `{ data, problem }`. Asked again when the path changes, and every `every` milliseconds. */
export function useAnswer(path, every = 0) {
  const [answer, setAnswer] = useState({ path: null });
  useEffect(() => {
    if (path === null) return undefined;
    const left = new AbortController();
    const ask = () =>
      get(path, left.signal).then(
        (data) => setAnswer({ path, data }),
        (problem) => left.signal.aborted || setAnswer({ path, problem }),
      );
    ask();
    const timer = every > 0 ? setInterval(ask, every) : 0;
    return () => {
      left.abort();
      clearInterval(timer);
    };
  }, [path, every]);
  return answer.path === path ? answer : {};
}

/** The node's time now. */
export const nodeTime = () => Date.now() + state.ahead;

let revision = null;

async function look() {
  try {
    const picture = await get("/v1/picture");
    set({
      picture,
      arrived: Date.now(),
      ahead: Date.parse(picture.now) - Date.now(),
      problem: null,
      needsToken: false,
    });
    if (revision !== picture.rules_sha256) {
      revision = picture.rules_sha256;
      const { jurisdictions } = await get("/v1/explain?all=true");
      set({ jurisdictions: Object.fromEntries(jurisdictions.map((one) => [one.name, one.countries])) });
    }
  } catch (problem) {
    set({ problem, needsToken: problem.status === 401 || problem.status === 403 });
  }
}

async function addTraffic() {
  if (!(state.picture?.peers.length > 0)) return set({ traffic: null });
  const asked = await get(query("/v1/traffic", { since: "10m", fleet: "true" })).catch(() => null);
  set({ traffic: asked });
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
/** Something changed, so that the picture is old. */
function soon() {
  soonTimer ||= setTimeout(() => {
    soonTimer = 0;
    look();
  }, 250);
}

let isStarted = false;

/** Begins to ask, with a token if one was typed in. */
export async function start(token) {
  if (token !== undefined) setToken(token);
  await look();
  if (isStarted || state.needsToken) return;
  isStarted = true;
  follow(note, (live) => set({ live }));
  const turn = async () => {
    // Nobody looks at a hidden page.
    if (!document.hidden) await look();
    setTimeout(turn, (state.picture?.regions.length ?? 0) > 200 ? 5000 : 2000);
  };
  setTimeout(turn, 2000);
  addTraffic();
  setInterval(addTraffic, TRAFFIC_EVERY);
  if (state.world === null) set({ world: await get(WORLD).catch(() => null) });
}
