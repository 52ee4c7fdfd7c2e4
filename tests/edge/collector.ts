// A collector of events and spans, in the test's process. It keeps what it gets, and decodes it with the official
// protobufs, which scripts/setup installs from PyPI.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { homedir } from "node:os";
import { type Json, root, serve, until } from "./harness.js";

const cache = process.env.BAILIWICK_CACHE ?? `${process.env.XDG_CACHE_HOME ?? `${homedir()}/.cache`}/bailiwick`;
const python = `${cache}/python/bin/python`;
// Without the protobufs a test could take for OTLP what no collector takes.
if (
  !existsSync(python) ||
  spawnSync(python, ["-c", "import opentelemetry.proto.collector.logs.v1.logs_service_pb2"]).status !== 0
)
  throw new Error(`no OTLP protobufs in ${python}: run scripts/setup python`);

interface Post {
  path: string;
  headers: Json;
  body: string;
}

/** Answers as a collector does that takes everything. */
export const takes = (_: IncomingMessage, response: ServerResponse) => {
  response.writeHead(200, { "content-type": "application/json" }).end('{"partialSuccess":{}}');
};

/** The attributes of a record or span, each with its plain value. */
export function attributes(record: Json): Json {
  const value = (of: Json): any =>
    "arrayValue" in of
      ? (of.arrayValue.values ?? []).map(value)
      : "intValue" in of
        ? Number(of.intValue)
        : Object.values(of)[0];
  return Object.fromEntries((record.attributes ?? []).map((one: Json) => [one.key, value(one.value)]));
}

export class Collector {
  readonly posts: Post[] = [];
  /** How it answers; a test may change it. */
  answer: (request: IncomingMessage, response: ServerResponse) => void;
  url = "";

  private constructor(answer: typeof takes) {
    this.answer = answer;
  }

  static async start(answer = takes): Promise<Collector> {
    const collector = new Collector(answer);
    collector.url = await serve(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks).toString();
      collector.posts.push({ path: request.url!, headers: request.headers, body });
      collector.answer(request, response);
    });
    return collector;
  }

  /** The sink of the rules for it. */
  sink(countries: string[], more: Json = {}): Json {
    return { countries, otlp: `${this.url}/v1/logs`, ...more };
  }

  /** The decoded posts. */
  private decoded(): Json[] {
    const input = JSON.stringify(this.posts);
    const done = spawnSync(python, [`${root}tests/edge/otlp_decode.py`], { input, maxBuffer: 1 << 28 });
    if (done.status !== 0) throw new Error(String(done.stderr));
    return JSON.parse(String(done.stdout));
  }

  /** All log records, decoded. */
  events(): Json[] {
    const resources = this.decoded().flatMap((message) => message.resourceLogs ?? []);
    return resources.flatMap((one: Json) => one.scopeLogs.flatMap((scope: Json) => scope.logRecords));
  }

  /** All spans, decoded. */
  spans(): Json[] {
    const resources = this.decoded().flatMap((message) => message.resourceSpans ?? []);
    return resources.flatMap((one: Json) => one.scopeSpans.flatMap((scope: Json) => scope.spans));
  }

  /** Waits until posts hold this text so often. */
  async holds(text: string, times = 1): Promise<void> {
    const count = () => this.posts.reduce((sum, { body }) => sum + body.split(text).length - 1, 0);
    await until(
      async () => count(),
      (counted) => counted >= times,
    );
  }
}
