// Draws the rows of the benchmark as an SVG: CPU time per request, with a panel for each kind of answer and number of
// connections. Called by run.mjs.

const ROW = 26,
  NAME = 190,
  WIDTH = 760,
  TOP = 34;
const escape = (text) => text.replace(/[<>&"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** `rows` as run.mjs writes them to edge.json. */
export function chart(rows) {
  /** @type {Map<string, typeof rows>} */
  const panels = new Map();
  for (const row of rows) {
    const title = `${row.kind}, ${row.connections} connection${row.connections > 1 ? "s" : ""}`;
    panels.set(title, [...(panels.get(title) ?? []), row]);
  }
  const most = Math.max(1, ...rows.map((row) => row.cpu_us_per_request?.max ?? 0));
  const x = (value) => (value / most) * (WIDTH - NAME - 90);
  const parts = [];
  let y = 40;
  for (const [title, list] of panels) {
    parts.push(`<text class="panel" x="16" y="${y + 18}">${escape(title)}</text>`);
    y += TOP;
    for (const row of list) {
      parts.push(`<text x="${NAME - 8}" y="${y + 15}" text-anchor="end">${escape(row.gateway)}</text>`);
      const time = row.cpu_us_per_request;
      if (time) {
        const middle = y + 10.5;
        parts.push(
          `<rect class="${row.name === "bailiwick" ? "own" : "bar"}" x="${NAME}" y="${y + 3}" ` +
            `width="${x(time.median).toFixed(1)}" height="15" rx="2"/>`,
        );
        parts.push(`<path d="M${(NAME + x(time.min)).toFixed(1)} ${middle}H${(NAME + x(time.max)).toFixed(1)}"/>`);
        parts.push(
          `<text x="${(NAME + x(time.max) + 8).toFixed(1)}" y="${y + 15}">${Math.round(time.median)} µs</text>`,
        );
      } else parts.push(`<text x="${NAME}" y="${y + 15}">fails</text>`);
      y += ROW;
    }
    y += 8;
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 8}" width="${WIDTH}" height="${y + 8}">
<style>text{font:13px system-ui,sans-serif;fill:#24292f}.panel,.title{font-weight:600}.title{font-size:15px}
.bar{fill:#9aa7b4}.own{fill:#1f6feb}path{stroke:#24292f;stroke-width:1.5}rect.back{fill:#fff}</style>
<rect class="back" width="100%" height="100%"/>
<text class="title" x="16" y="26">CPU time of the process per request (median; the line: least to most)</text>
${parts.join("\n")}
</svg>
`;
}
