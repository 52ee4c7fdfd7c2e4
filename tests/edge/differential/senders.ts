// Who sends a request: the client's address, place and key, and the further headers that clients send. Called by
// requests.ts.
import type { Json } from "../harness.js";
import type { Draw } from "./draw.js";
import { OPERATOR } from "./side.js";
import type { Fields } from "./wire.js";

export interface Client {
  /** The name of its service. */
  name: string;
  number: number;
  /** Its country. */
  place: string | undefined;
  hasTenant: boolean;
  /** Whether the endpoints run an engine with fields of its own. */
  engine: boolean;
}

/** What is the client's own: its address and place, its key, and what it sends with all of its requests. */
export function identity(d: Draw, { number, place, hasTenant, name }: Client): Fields {
  const fields: Fields = [];
  const address = d.weighted([
    [40, `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`],
    [6, `2001:db8:${(number >> 8).toString(16)}:${(number & 255).toString(16)}::1`],
    [1, `198.51.100.${number & 255}`],
    [1, ""],
    [1, "no address"],
  ]);
  if (address) fields.push(["CF-Connecting-IP", address]);
  const where = d.weighted<Json | undefined>([
    [30, { country: place }],
    [5, { country: place, latitude: "52.5", longitude: "13.4" }],
    [1, { country: place, latitude: 48.1, longitude: 2 }],
    [1, { country: place?.toLowerCase() }],
    [1, {}],
    [1, { country: 7, latitude: null }],
    [1, undefined],
  ]);
  if (where) fields.push(["bailiwick-cf", JSON.stringify(where)]);
  const key = d.weighted<Fields>([
    [hasTenant ? 40 : 8, [["Authorization", `Bearer sk-${name}`]]],
    [2, [["api-key", `sk-${name}`]]],
    [1, [["Authorization", `bearer  sk-${name}`]]],
    [1, [["Authorization", `Basic sk-${name}`]]],
    [1, [["Authorization", "Bearer sk-nobody"]]],
    [1, [["Authorization", `Bearer ${OPERATOR}`]]],
    [
      1,
      [
        ["Authorization", `Bearer sk-${name}`],
        ["api-key", "sk-nobody"],
      ],
    ],
    [
      1,
      [
        ["Authorization", `Bearer sk-${name}`],
        ["Authorization", "Bearer sk-nobody"],
      ],
    ],
    [1, [["Authorization", ""]]],
    [hasTenant ? 1 : 20, []],
  ]);
  return [...fields, ...key];
}

/** Headers for which most requests are refused. */
export const REFUSED: Fields = [
  ["Origin", "https://other.example"],
  ["Origin", "null"],
  ["x-bailiwick-pin", "eu"],
  ["Content-Encoding", "gzip"],
  ["Content-Encoding", "identity"],
];

/** Further headers that clients send. */
export const HEADERS: Fields = [
  ["Accept", "text/plain"],
  ["Accept", "*/*"],
  ["Accept-Encoding", "gzip, br"],
  ["User-Agent", "OpenAI/Python 1.0"],
  ["X-Stainless-Lang", "js"],
  ["Idempotency-Key", "k1"],
  ["OpenAI-Organization", "org-x"],
  ["OpenAI-Beta", "assistants=v2"],
  ["x-session-id", "s1"],
  ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
  ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"],
  ["traceparent", "nonsense"],
  ["tracestate", "a=b"],
  ["baggage", "user=alice"],
  ["Cookie", "a=b"],
  ["Origin", "https://app.example.com"],
  ["Access-Control-Request-Method", "POST"],
  ["Access-Control-Request-Headers", "authorization,x-other"],
  ["x-bailiwick-operator", OPERATOR],
  ["x-bailiwick-bundle", "prompts@abc"],
  ["X-Forwarded-For", "192.0.2.1"],
  ["X-Forwarded-Proto", "https"],
  ["Forwarded", "for=192.0.2.1"],
  ["CF-IPCountry", "US"],
  ["CF-Ray", "x"],
  ["Via", "1.1 x"],
  ["Range", "bytes=0-1"],
  ["If-None-Match", '"x"'],
  ["Content-Language", "de"],
  ["X-Latin", "caf\u00e9"],
  ["X-Utf8", "caf\u00c3\u00a9"],
  ["X-Empty", ""],
  ["X-Many", "a"],
  ["X-Many", "b"],
  ["x_under", "1"],
  ["X-Long", "z".repeat(6_000)],
  ["X-Tab", "a\tb"],
  ["Expect", "100-continue"],
  ["Connection", "close"],
  ["Connection", "keep-alive"],
  ["Connection", "X-Many"],
  ["Keep-Alive", "timeout=5"],
  ["Te", "trailers"],
  ["Upgrade-Insecure-Requests", "1"],
  ["Priority", "u=1"],
  ["Proxy-Authorization", "Basic x"],
  ["Pragma", "no-cache"],
  ["x-api-key", "sk-x"],
];
