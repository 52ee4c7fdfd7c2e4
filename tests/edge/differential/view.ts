// What one side did in a case, as texts by name: each answer, each request that endpoints got, the log, the events and
// the metrics. Random and timed values are replaced by their kind. Called by run.ts; compare.ts compares two views.
import type { Json } from "../harness.js";
import type { Case } from "./cases.js";
import type { Answered, Fields, Message } from "./wire.js";
import { field } from "./wire.js";

/** What happened, before it is made comparable. */
export interface Happened {
  answers: Answered[];
  seen: Message[];
  /** Lines of the log, events and spans, each with the id of its request. */
  records: { kind: "log" | "event" | "span"; id: string; value: Json }[];
  /** Series of the metrics that have the case's name. */
  metrics: [series: string, value: number][];
}

export type View = Map<string, string>;

/** What is replaced on both sides, and why it can't be equal. Nothing else is. */
export const REPLACED: readonly (readonly [what: RegExp, by: string, why: string])[] = [
  [/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "<request id>", "a request's id is random"],
  [/(?<=127\.0\.0\.1:)[0-9]+/g, "<port>", "each side has endpoints of its own"],
  [/(?<=(steer|upstream);dur=)[0-9]+/g, "<ms>", "times"],
  [/(?<=x-ratelimit-reset-(requests|tokens): ).*/g, "<time>", "times: a budget comes back continuously"],
  [/(?<=retry-after-ms: )[0-9]+/g, "<ms>", "times"],
  [/(?<=;ms=)[0-9]+/g, "<ms>", "times"],
  [/(?<="key":"bailiwick\.(duration|first_token)_ms","value":\{"intValue":")[0-9]+/g, "<ms>", "times"],
  [/(?<="(ms|iat|rules_age_seconds)":)"?[0-9.]+"?/g, "<time>", "times"],
  [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "<time>", "times"],
  [/(?<="(timeUnixNano|observedTimeUnixNano|startTimeUnixNano|endTimeUnixNano)":)"[^"]*"/g, "<time>", "times"],
  [/(?<="rules_sha256":")[0-9a-f]{64}/g, "<digest>", "the rules name each side's own endpoints"],
  [/(?<="tenant":")[\w-]{43}/g, "<digest>", "a receipt's tenant is hashed with the request's id"],
  [/(?<=boundary="?)[\w-]{16,}/g, "<boundary>", "the boundary of a form is random"],
  [/(?<=--)[\w-]{16,}(?=(--)?\r\n)/g, "<boundary>", "the boundary of a form is random"],
  [/(?<="(spanId|parentSpanId)":")[0-9a-f]{16}/g, "<span>", "made from the request's id"],
  [/(?<="traceId":")(?!0af7651916cd43dd8448eb211c80319c)[0-9a-f]{32}/g, "<trace>", "made from the request's id"],
  [/00-(?!0af7651916cd43dd8448eb211c80319c)[0-9a-f]{32}-[0-9a-f]{16}-/g, "00-<trace>-<span>-", "made from its id"],
  [/00-0af7651916cd43dd8448eb211c80319c-(?!b7ad6b7169203331)[0-9a-f]{16}-/g, "00-<given>-<span>-", "made from its id"],
];

function comparable(text: string): string {
  return REPLACED.reduce((text, [what, by]) => text.replace(what, by), text);
}

/** A receipt's claims, as text. */
function claims(receipt: string): string {
  const [head, payload] = receipt.split(".").map((part) => Buffer.from(part, "base64url").toString());
  return `${head}.${payload}`;
}

const LENGTH = "content-length: <length>";

const isGet = ({ first }: Message) => first.startsWith("GET ");

const written = (fields: Fields) =>
  fields
    .map(([name, value]) => `${name}: ${name === "x-bailiwick-receipt" ? claims(value) : value}`)
    .sort()
    .join("\n");

/** `isFolded`: a GET that was sent several times in a row counts once. */
export function view({ name }: Case, happened: Happened, isFolded = false): View {
  const { answers, records, metrics } = happened;
  const isRepeated = (i: number) => i > 0 && isGet(all[i]) && all[i].first === all[i - 1].first;
  const all = happened.seen;
  const seen = all.filter((_, i) => !(isFolded && isRepeated(i)));
  const view: View = new Map();
  answers.forEach(({ status, fields, body, isWhole }, i) => {
    view.set(`answer ${i} status`, String(status));
    const [raw, own] = [body.toString("latin1"), comparable(body.toString("latin1"))];
    const headers = comparable(written(fields));
    // Where times stand in it, its length differs, too.
    view.set(`answer ${i} headers`, own === raw ? headers : headers.replace(/^content-length: .*/m, LENGTH));
    view.set(`answer ${i} body`, own);
    view.set(`answer ${i} end`, isWhole ? "whole" : "broken off");
  });
  view.set("calls", seen.map(({ first }) => first).join("\n"));
  seen.forEach(({ fields, body, isWhole }, i) => {
    view.set(`call ${i} headers`, comparable(written(fields)));
    view.set(`call ${i} body`, comparable(body.toString("latin1")));
    view.set(`call ${i} end`, isWhole ? "whole" : "broken off");
  });
  answers.forEach(({ fields }, i) => {
    const id = field(fields, "x-bailiwick-request-id");
    for (const kind of ["log", "event", "span"] as const) {
      const of = records.filter((record) => record.kind === kind && record.id === id);
      view.set(
        `${kind} ${i}`,
        of
          .map(({ value }) => comparable(JSON.stringify(value)))
          .sort()
          .join("\n"),
      );
    }
  });
  view.set(
    "metrics",
    metrics
      .map(([series, value]) => `${series.replaceAll(name, "")} ${value}`)
      .sort()
      .join("\n"),
  );
  return view;
}
