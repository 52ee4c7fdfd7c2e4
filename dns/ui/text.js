// Words and numbers for people. Takes values, returns text, or an element that keeps foreign text apart.
import { html } from "./html.js";
import { nodeTime } from "./store.js";

const names = new Intl.DisplayNames(["en"], { type: "region", fallback: "code" });

/** The name of a country; its code if it has none. */
export const country = (code) => {
  if (code == null || code === "unknown") return "unknown place";
  try {
    return names.of(code);
  } catch {
    return code;
  }
};

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const small = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

/** A number of things. */
export const count = (value) => (value == null ? "–" : whole.format(value));
/** So many a second. */
export const rate = (value) =>
  value >= 10 ? whole.format(value) : value >= 1 ? number.format(value) : small.format(value);
/** A share or a load. */
export const percent = (value) => (value == null ? "–" : `${value > 9.99 ? ">999" : whole.format(value * 100)} %`);
/** One thing or several. */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** A span of milliseconds, in its largest unit. */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** How long ago, by the node's clock. */
export const ago = (at) => (at == null ? "–" : `${span(nodeTime() - Date.parse(at))} ago`);
/** How old what was told then is, by the node's clock. */
export const age = (at) => span(nodeTime() - Date.parse(at));
/** How long until, by the node's clock. */
export const left = (at) => span(Date.parse(at) - nodeTime());
/** The time of day in UTC. */
export const clock = (at) => new Date(at).toISOString().slice(11, 16);
/** The time of day in UTC, to the second. */
export const moment = (at) => `${new Date(at).toISOString().slice(11, 19)} UTC`;
/** Date and time in UTC. */
export const date = (at) => `${new Date(at).toISOString().slice(0, 16).replace("T", " ")} UTC`;

const LONGEST = 160;
const LONGEST_TITLE = 1000;

/** Text that others wrote: its direction stays its own, control characters are shown as spaces, and it is cut. */
export function Foreign({ text, most = LONGEST }) {
  const clean = String(text ?? "")
    .slice(0, LONGEST_TITLE)
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, " ");
  if (clean.length <= most) return html`<bdi>${clean}</bdi>`;
  return html`<bdi title=${clean}>${clean.slice(0, most)}…</bdi>`;
}
