// Compares what the two sides did in a case. Takes what happened; returns the differences, without those that have to
// be. Called by run.ts.
import type { Case } from "./cases.js";
import { type Happened, type View, view } from "./view.js";

export interface Difference {
  what: string;
  workerd: string;
  native: string;
}

/** A difference that has to be: of which part of a view, and why. */
interface Excepted {
  what: RegExp;
  why: string;
  /** Changes either side's text so that only what has to differ is gone. */
  level?: (text: string, side: "workerd" | "native") => string;
  /** Whether two texts may differ as they do. `of` tells another part of both views, with the number of this one. */
  allows?: (workerd: string, native: string, of: (part: string) => string[]) => boolean;
}

const drop = (lines: RegExp) => (text: string) =>
  text
    .split("\n")
    .filter((line) => !lines.test(line))
    .join("\n");

/** Whether headers are the edge's own answer, or an endpoint's that it passes on. */
const isOwn = (headers: string) => headers.includes("x-request-id: ");

/** Where the two differ, and why. docs/self-hosting.md has the same table for operators. */
export const EXCEPTED: readonly Excepted[] = [
  {
    what: /^answer \d+ headers$/,
    why: "the native gateway dates its answers (RFC 9110 §6.6.1); workerd leaves that to a front",
    level: (text, side) => (side === "native" ? drop(/^date: /)(text) : text),
  },
  {
    what: /^answer \d+ headers$/,
    why: "whether an answer in one piece is sent with its length depends on whether all of it had come",
    level: drop(/^(transfer-encoding: chunked|content-length: \d+)$/),
  },
  {
    what: /^answer \d+ headers$/,
    why: "workerd sorts an endpoint's headers by name, and the list of those that pages may read follows them",
    level: (text) =>
      text.replace(/(?<=^access-control-expose-headers: ).*$/m, (list) => list.split(", ").sort().join(", ")),
  },
  {
    what: /^answer \d+ (status|headers|body|end)$/,
    why: "what is no good HTTP is refused before its body is read, and the reset that follows may overtake the refusal",
    allows: (_workerd, _native, of) =>
      of("answer # status").sort().join() === "0,400" && !of("answer # headers").some(isOwn),
  },
  {
    what: /^answer \d+ body$/,
    why: "of an answer that breaks off, workerd drops what it hasn't written yet",
    allows: (workerd, native, of) =>
      of("answer # end").every((end) => end === "broken off") && native.startsWith(workerd),
  },
  {
    what: /^(log|event) \d+$/,
    why: "whether the end of a stream is piped depends on whether all of it had come",
    level: (text) => text.replace('"end":"piped"', '"end":"whole"'),
  },
  {
    what: /^answer \d+ (headers|body)$/,
    why: "a request that is no good HTTP is refused with a word of workerd's own, by the native gateway without one",
    level: (text) => (isOwn(text) ? text : drop(/^(content-(length: (0|11)|type: text\/plain)|invalid URI)$/)(text)),
  },
];

/** How often each exception was needed. */
export const excepted = new Map<string, number>();

/** workerd's client sends a GET again by itself where its connection ends without an answer (RFC 9110 §9.2.2). */
export const REPEATS = "workerd's HTTP client sends a GET again by itself whose connection ended without an answer";

/** Compares what happened in a case. */
export function compare(one: Case, workerd: Happened, native: Happened): Difference[] {
  const differences = compared(view(one, workerd), view(one, native));
  if (workerd.seen.length <= native.seen.length) return differences;
  const folded = compared(view(one, workerd, true), view(one, native, true));
  if (folded.length < differences.length) note(REPEATS);
  return folded;
}

const note = (why: string) => excepted.set(why, (excepted.get(why) ?? 0) + 1);

function compared(workerd: View, native: View): Difference[] {
  const names = [...new Set([...workerd.keys(), ...native.keys()])];
  return names.flatMap((what) => {
    let [one, other] = [workerd.get(what) ?? "(none)", native.get(what) ?? "(none)"];
    const number = what.match(/\d+/)?.[0] ?? "";
    const of = (part: string) => [workerd, native].map((view) => view.get(part.replace("#", number)) ?? "");
    for (const { what: which, why, level, allows } of EXCEPTED) {
      if (one === other) break;
      if (!which.test(what)) continue;
      const levelled = level
        ? [level(one, "workerd"), level(other, "native")]
        : allows?.(one, other, of)
          ? ["", ""]
          : [one, other];
      if (levelled[0] === one && levelled[1] === other) continue;
      note(why);
      [one, other] = levelled;
    }
    return one === other ? [] : [{ what, workerd: one, native: other }];
  });
}

/** Two texts from shortly before where they differ. */
export function told({ what, workerd, native }: Difference): string {
  if (what.endsWith("headers") || what === "metrics" || what.startsWith("log")) {
    const [one, other] = [workerd.split("\n"), native.split("\n")];
    const only = (lines: string[], others: string[]) => lines.filter((line) => !others.includes(line)).join(" | ");
    if (!what.startsWith("log"))
      return `  ${what}\n    workerd only: ${short(only(one, other))}\n    native only:  ${short(only(other, one))}`;
  }
  let at = 0;
  while (at < workerd.length && workerd[at] === native[at]) at++;
  const from = Math.max(0, at - 60);
  const part = (text: string) => short(`${from > 0 ? "…" : ""}${text.slice(from)}`);
  return `  ${what} (from ${from})\n    workerd: ${part(workerd)}\n    native:  ${part(native)}`;
}

const short = (text: string) => JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text);
