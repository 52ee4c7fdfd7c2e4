// An endpoint in the test's process whose streams stay open until the test ends them, and rules that name it.
import type { IncomingMessage, ServerResponse } from "node:http";
import { STREAM, type Told, open, told } from "./asking.js";
import { Gateway } from "./gateway.js";
import { type Json, region, rules, serve, until } from "./harness.js";

/** An event of a stream. */
export const event = (text: string, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text }, finish_reason: finish }] })}\n\n`;
export const END = `${event("end", "stop")}data: [DONE]\n\n`;

/** An endpoint in the test's process. Streams stay open after their first event, until the test ends them. */
export class Endpoint {
  readonly streams: ServerResponse[] = [];
  readonly seen: IncomingMessage[] = [];

  private constructor(readonly url: string) {}

  static async start(): Promise<Endpoint> {
    let endpoint: Endpoint;
    const url = await serve(async (request, response) => {
      let text = "";
      for await (const chunk of request) text += chunk;
      endpoint.seen.push(request);
      if (!text.includes('"stream":true')) {
        const message = { role: "assistant", content: "Hello." };
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ choices: [{ index: 0, message, finish_reason: "stop" }] }));
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(event("begin"));
      endpoint.streams.push(response);
    });
    endpoint = new Endpoint(url);
    return endpoint;
  }

  /** Opens a stream through a gateway. Returns the client's reading of it, and this endpoint's side. */
  async stream(gateway: Gateway, isTls = false): Promise<{ reading: Promise<Told>; answer: ServerResponse }> {
    const before = this.streams.length;
    const reading = told(await open(gateway.address, { body: STREAM, isTls }));
    // It may break off before anybody waits for it.
    reading.catch(() => {});
    await until(
      async () => this.streams.length,
      (count) => count > before,
    );
    return { reading, answer: this.streams.at(-1)! };
  }

  /** Rules whose regions in Germany and in the United States have this endpoint. */
  rules(more: Json = {}, service: Json = {}, revision = 1): string {
    const regions = { ...region("DE", "eu-frankfurt", [this.url]), ...region("US", "us-virginia", [this.url]) };
    return JSON.stringify(rules(revision, regions, service, more));
  }

  /** Rules that name the clients on this machine as German. */
  local(more: Json = {}, service: Json = {}): string {
    return this.rules({ networks: [{ prefix: "127.0.0.0/8", country: "DE" }], ...more }, service);
  }

  /** Starts a gateway with rules that name the clients on this machine as German. */
  gateway(config: string): Promise<Gateway> {
    return Gateway.start({ config, files: { "rules.json": this.local() } });
  }
}
