// The two sides: the Worker on workerd, and the native gateway, each with endpoints of its own.
import { Native } from "../native.js";
import { onStop, until } from "../harness.js";
import { workerd } from "../workerd.js";
import { Endpoints } from "./endpoint.js";
import { type Answered, type Sent, ask } from "./wire.js";

export const OPERATOR = "operator-token-0123456789";
/** The private key for receipts: that of RFC 8037, appendix A.1. */
const RECEIPT_KEY = JSON.stringify({
  kty: "OKP",
  crv: "Ed25519",
  d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
  x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
});

const bindings = (port: number) => ({
  RULES_URL: `http://127.0.0.1:${port}/v1/rules`,
  RULES_REFRESH_SECONDS: "0.3",
  HEALTH_REFRESH_SECONDS: "60",
  STATE_KEY: "a-secret-of-more-than-thirty-two-characters",
  LOGS_KEY: "pseudonym-key-0123456789-0123456789",
  RECEIPT_KEY,
  EXPLAIN_TOKEN: OPERATOR,
  LOG: "all",
  FRA_KEY: "upstream-key",
});

export class Side {
  private constructor(
    readonly name: "workerd" | "native",
    readonly endpoints: Endpoints,
    private readonly port: number,
    /** The lines of the edge's log so far. */
    readonly log: readonly string[],
  ) {}

  static async workerd(): Promise<Side> {
    const endpoints = await Endpoints.start();
    const { url, lines } = await workerd(bindings(endpoints.port), { place: "bailiwick-cf", isQuiet: true });
    return new Side("workerd", endpoints, Number(new URL(url).port), lines);
  }

  /** `more`: variables and secrets that differ from those of the other side. */
  static async native(more: Record<string, string> = {}): Promise<Side> {
    const endpoints = await Endpoints.start();
    const options = ["--threads", "1", "--trust", "127.0.0.0/8"];
    const native = await Native.start({ ...bindings(endpoints.port), ...more }, options, {
      hasKv: false,
      isQuiet: true,
    });
    onStop(() => native.dispose());
    return new Side("native", endpoints, Number(native.address.split(":")[1]), native.log);
  }

  ask(sent: Sent): Promise<Answered> {
    return ask(this.port, sent);
  }

  private own(path: string): Promise<Answered> {
    const fields: Sent["fields"] = [
      ["Host", "filler.example"],
      ["Authorization", `Bearer ${OPERATOR}`],
    ];
    return this.ask({ method: "GET", target: `/.well-known/bailiwick/${path}`, fields });
  }

  /** Lets the edge follow this document, and waits until it does. */
  async follow(revision: number, rules: string): Promise<void> {
    this.endpoints.follow(rules);
    const told = async () => JSON.parse((await this.own("healthz")).body.toString() || "{}");
    const fits = (health: any) => health.revision === revision || ["invalid", "conflict"].includes(health.rules_feed);
    const health = await until(told, fits, 60_000);
    if (health.revision !== revision)
      throw new Error(`${this.name} refused the rules: ${this.log.findLast((line) => line.includes("rules_refused"))}`);
  }

  /** A request that is served at once: it pays a fifth of a retry into the edge's budget. */
  async fill(): Promise<void> {
    const body = Buffer.from('{"model":"m","input":"x"}');
    const fields: Sent["fields"] = [
      ["Host", "filler.example"],
      ["Content-Type", "application/json"],
      ["bailiwick-cf", '{"country":"DE"}'],
    ];
    const { status } = await this.ask({ method: "POST", target: "/v1/embeddings", fields, body });
    if (status !== 200) throw new Error(`${this.name} answered a filler with ${status}`);
  }

  /** The page of metrics: each series with its value. */
  async metrics(): Promise<Map<string, number>> {
    const lines = (await this.own("metrics")).body.toString().split("\n");
    const samples = lines.filter((line) => line !== "" && !line.startsWith("#"));
    return new Map(samples.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.match(/\S+$/)![0])]));
  }
}
