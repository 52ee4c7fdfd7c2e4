// The page: its head, its routes, and what it shows without a token or a node.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Ask } from "./ask.js";
import { Capacity } from "./capacity.js";
import { Drills } from "./drills.js";
import { html } from "./html.js";
import { Nodes } from "./nodes.js";
import { Now } from "./now.js";
import { Rollouts } from "./rollouts.js";
import { Rules } from "./rules.js";
import { isSilent, start, useStore } from "./store.js";
import { Foreign, age, moment, span } from "./text.js";
import { Timeline } from "./timeline.js";

const ROUTES = [
  ["", "Now", Now],
  ["timeline", "Timeline", Timeline],
  ["ask", "Ask", Ask],
  ["rules", "Rules", Rules],
  ["rollouts", "Rollouts", Rollouts],
  ["drills", "Drills", Drills],
  ["capacity", "N−1", Capacity],
  ["nodes", "Nodes", Nodes],
];

const read = () => {
  const [name = "", argument = ""] = location.hash.replace(/^#\/?/, "").split("/");
  let decoded = "";
  try {
    decoded = decodeURIComponent(argument);
  } catch {
    // Whoever wrote the address meant no region.
  }
  return { name: ROUTES.some(([route]) => route === name) ? name : "", argument: decoded };
};

function useRoute() {
  const [route, go] = useState(read);
  useEffect(() => {
    const changed = () => go(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

const system = matchMedia("(prefers-color-scheme: dark)");

function useTheme() {
  const [theme, choose] = useState(system.matches ? "dark" : "light");
  useEffect(() => {
    const changed = () => choose(system.matches ? "dark" : "light");
    system.addEventListener("change", changed);
    return () => system.removeEventListener("change", changed);
  }, []);
  document.documentElement.dataset.theme = theme;
  return [theme, () => choose(theme === "dark" ? "light" : "dark")];
}

function TokenForm({ problem, refusal, refusals }) {
  const field = useRef(null);
  const submit = (event) => {
    event.preventDefault();
    start(field.current.value);
    field.current.value = "";
  };
  // Who types in a wrong token goes on there.
  useEffect(() => {
    if (refusals > 0) field.current.focus();
  }, [refusals]);
  const said = refusal ?? (problem?.status === 403 ? problem.message : null);
  return html`<main class="gate">
    <section class="card">
      <h1>This node wants a token</h1>
      <p>
        Type one of its <code>[api]</code> read tokens. It stays in this page's memory until the page is closed, and is
        sent to this node only.
      </p>
      <form onSubmit=${submit}>
        <label
          >Token
          <input
            ref=${field}
            type="password"
            name="token"
            autocomplete="off"
            required
            maxlength="1000"
            aria-invalid=${refusal !== null}
            aria-describedby="refusal"
        /></label>
        <button type="submit" class="primary">Look</button>
      </form>
      <div id="refusal">
        ${said && html`<p key=${refusals} class="warn" role="alert"><${Foreign} text=${said} most=${400} /></p>`}
      </div>
    </section>
  </main>`;
}

function Head({ picture, route, live, silent, theme, turn }) {
  return html`<header class="top">
    <a class="brand" href="#/" aria-label="bailiwick, now"
      ><svg viewBox="0 0 24 24" aria-hidden="true">
        <path d="M3 20V9l3 2 3-4 3 4 3-4 3 4 3-2v11z" />
        <path d="M3 16h18" /></svg
      >bailiwick</a
    >
    <nav aria-label="pages">
      <ul>
        ${ROUTES.map(([name, label]) => html`<li><a href="#/${name}" aria-current=${route.name === name ? "page" : undefined}>${label}</a></li>`)}
      </ul>
    </nav>
    <p class="who">
      <span
        ><b><${Foreign} text=${picture.node} most=${40} /></b> <span class="soft">revision</span>
        <b>${picture.revision}</b></span
      >
      <span
        class=${silent ? "late" : live ? "live" : "polled"}
        title="version ${picture.version}, up for ${span(Date.parse(picture.now) - Date.parse(picture.begun))}"
        >${silent ? `silent for ${age(picture.now)}` : live ? "live" : "every 2 s"}</span
      >
      <button
        type="button"
        class="theme"
        onClick=${turn}
        aria-label=${theme === "dark" ? "use light colours" : "use dark colours"}
      >
        <span aria-hidden="true">◐</span>
      </button>
    </p>
  </header>`;
}

function Page() {
  const { picture, problem, needsToken, refusal, refusals, live } = useStore();
  const route = useRoute();
  const [theme, turn] = useTheme();
  const main = useRef(null);
  const first = useRef(true);
  const [, , View] = ROUTES.find(([name]) => name === route.name);
  const label = ROUTES.find(([name]) => name === route.name)[1];
  useEffect(() => {
    document.title = picture ? `${label} · ${picture.node.slice(0, 80)} · bailiwick` : "bailiwick";
  }, [label, picture?.node]);
  useEffect(() => {
    if (first.current) first.current = false;
    else main.current?.focus();
  }, [route.name, route.argument]);
  if (needsToken) return html`<${TokenForm} ...${{ problem, refusal, refusals }} />`;
  if (!picture)
    return html`<main class="gate"><p role="status">${problem ? problem.message : "asking the node…"}</p></main>`;
  const silent = isSilent();
  return html` <a
      class="skip"
      href="#main"
      onClick=${(event) => {
        event.preventDefault();
        main.current?.focus();
      }}
      >skip to the content</a
    >
    <${Head} ...${{ picture, route, live, silent, theme, turn }} />
    <main id="main" tabindex="-1" ref=${main}>
      <h1 class="unseen">${label}: ${picture.node.slice(0, 80)}</h1>
      ${
        silent &&
        html`<p class="warn silent" role="alert">
          The node has been silent since ${moment(picture.now)}; what you see is what it told then
          ${problem && html`(<${Foreign} text=${problem.message} most=${400} />)`}
        </p>`
      }
      <${View} argument=${route.argument} dark=${theme} />
    </main>
    <footer class="soft">
      <p>
        Places: Natural Earth, coarse; borders are drawn as the data has them and decide nothing.
        <a href="NOTICES">Licences of this page's parts</a>.
      </p>
    </footer>`;
}

render(html`<${Page} />`, document.getElementById("page"));
start();
