// Scrolls one page, and measures its frames. Called by run.mjs.
import { readFileSync, readdirSync } from "node:fs";

/** What is run in the page, without its comment. */
const FRAMES = readFileSync(new URL("frames.js", import.meta.url), "utf8")
  .replace(/^(\/\/.*\n)+/, "")
  .replace(/;\s*$/, "");
const FILES = "dns/src/program/api/ui";
const WANTED = ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration"];

/** The page's files as they are in the folder now, under the names that the program has. */
async function replace(context) {
  const type = { js: "text/javascript", css: "text/css", json: "application/json" };
  for (const [kind, mime] of Object.entries(type)) {
    const file = readdirSync(FILES).find((name) => name.endsWith(`.${kind}`));
    const body = readFileSync(`${FILES}/${file}`);
    await context.route(new RegExp(`/ui/[a-z]+-[0-9a-f]+\\.${kind}$`), (route) =>
      route.fulfill({ body, contentType: mime }),
    );
  }
}

const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0;
const round = (value) => Math.round(value * 10) / 10;

/** Scrolls down and up again for so many seconds. */
export async function scroll(browser, url, path, { seconds, files }) {
  const context = await browser.newContext({ viewport: { width: 1600, height: 1000 } });
  if (files) await replace(context);
  const page = await context.newPage();
  await page.goto(`${url}/ui/#/${path}`);
  await page.locator("main#main").waitFor();
  await page.locator("main table tbody tr, main .card").first().waitFor();
  await page.waitForTimeout(3_000);
  // All rows that there are: whoever scrolls wants to see them.
  const more = page.locator("button", { hasText: /^show all/ });
  while ((await more.count()) > 0) await more.first().click();
  await page.waitForTimeout(2_000);
  const session = await context.newCDPSession(page);
  await session.send("Performance.enable");
  const numbers = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  };
  const before = await numbers();
  const { frames, long, height } = /** @type {{ frames: number[], long: number[], height: number }} */ (
    await page.evaluate(`(${FRAMES})(${seconds * 1_000})`)
  );
  const after = await numbers();
  const [script, layout, style, task] = WANTED.map((name) => ((after[name] - before[name]) * 1_000) / frames.length);
  const sorted = frames.slice(1).sort((one, other) => one - other);
  await context.close();
  return {
    "frames/s": round((frames.length * 1_000) / frames.reduce((sum, one) => sum + one, 0)),
    "p50 ms": round(at(sorted, 0.5)),
    "p95 ms": round(at(sorted, 0.95)),
    "max ms": round(at(sorted, 1)),
    "script ms/frame": round(script),
    style: round(style),
    layout: round(layout),
    "all tasks": round(task),
    "tasks > 50 ms": long.length,
    longest: round(Math.max(0, ...long)),
    nodes: after.Nodes,
    "height px": height,
  };
}
