// Follows a bundle of bailiwick: docs/bundles.md. Takes nodes, a name and a token; holds the files of one version, and
// of a second one while a rollout brings that.
//
//     const bundle = new Bundle(["https://ns1.example.com:8053", "https://ns2.example.com:8053"], "prompts", token);
//     await bundle.refresh(); // throws if no node gives it
//     void bundle.follow();
//     const { files, header } = await bundle.forSession(session); // once for each request
//     const system = text(files, "chat/system.md");
//     headers.set("x-bailiwick-bundle", header); // tells the edge which prompts these are
//
// Needs `fetch` and Web Crypto, as Node has them. Node from 22.18 runs it as it is. Then it prints each version, and
// each step of a rollout:
//
//     node bundles.ts http://127.0.0.1:8053 prompts [TOKEN_FILE]

const WAIT = 30; // seconds for which a node waits for another version, 60 at most
const PAUSE = 5_000; // milliseconds after an answer of no use

interface Manifest {
  version: string;
  files: { path: string; bytes: number; sha256: string }[];
  rollout?: { name: string; version: string; share: number; region: string };
}

interface Answer {
  body: Uint8Array<ArrayBuffer>;
  etag: string | undefined;
}

/** Contents by path. */
export type Files = ReadonlyMap<string, Uint8Array>;

/** A rollout: the new version with its files, and the share of a region's sessions that get it, in per cent. */
export interface Rollout {
  name: string;
  version: string;
  share: number;
  region: string;
  files: Files;
}

/** Whether a session gets a rollout's new version, while `share` per cent do. It keeps it while the share grows. */
export async function isNew(rollout: string, session: string, share: number): Promise<boolean> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${rollout}/${session}`));
  return new DataView(hash).getUint32(0) * 100 < share * 2 ** 32;
}

export function text(files: Files, path: string): string {
  const content = files.get(path);
  if (content === undefined) throw new Error(`the bundle has no ${path}`);
  return new TextDecoder().decode(content);
}

export class Bundle {
  /** The version that sessions get outside of a rollout, with its files. These three are replaced at once. */
  version: string | undefined;
  files: Files = new Map();
  rollout: Rollout | undefined;
  private etag: string | undefined;
  private readonly nodes: string[];
  private readonly name: string;
  private readonly token: string | undefined;
  private readonly region: string | undefined;

  constructor(nodes: string[], name: string, token?: string, region?: string) {
    this.nodes = [...nodes];
    this.name = name;
    this.token = token;
    this.region = region;
  }

  /** The files for a session, and the value of the header x-bailiwick-bundle that names their version. */
  async forSession(session: string): Promise<{ files: Files; header: string }> {
    // Read at once, as they may be replaced during the digest.
    const { name, version, files, rollout } = this;
    if (version === undefined) throw new Error(`bundle ${name}: no version is here yet; call refresh() first`);
    const isOfNew = rollout !== undefined && (await isNew(rollout.name, session, rollout.share));
    const chosen = isOfNew ? rollout : { version, files };
    // What the region by whose share this was chosen serves, and nothing else, is judged.
    const by = rollout === undefined ? "" : `;region=${rollout.region}`;
    return { files: chosen.files, header: `${name}@${chosen.version}${by}` };
  }

  /**
   * Gets what is new, from the first node that gives it: another version, or a step of a rollout. Returns whether there
   * was anything.
   */
  async refresh(wait = 0): Promise<boolean> {
    const failures: string[] = [];
    for (const node of [...this.nodes]) {
      try {
        return await this.refreshFrom(node, wait);
      } catch (error) {
        failures.push(`${node}: ${error instanceof Error ? error.message : String(error)}`);
        this.nodes.push(...this.nodes.splice(0, 1)); // the next node is asked first
      }
    }
    throw new Error(failures.join("; "));
  }

  /** Follows for ever. While no node is of use, what is there stays. */
  async follow(onChange?: (bundle: Bundle) => void): Promise<never> {
    for (;;) {
      const begun = Date.now();
      try {
        if (await this.refresh(WAIT)) {
          onChange?.(this);
          continue;
        }
        if (Date.now() - begun > 1_000) continue; // else a node that doesn't wait, as it goes down
      } catch (error) {
        console.error(`bundle ${this.name}: ${error instanceof Error ? error.message : String(error)}`);
      }
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  }

  private async refreshFrom(node: string, wait: number): Promise<boolean> {
    const question = new URLSearchParams();
    if (wait > 0) question.set("wait", `${wait}s`);
    if (this.region !== undefined) question.set("region", this.region);
    const answer = await this.get(`${node}/v1/bundles/${this.name}?${question}`, wait, this.etag);
    if (answer === undefined) return false;
    const manifest = manifestOf(answer);
    const { version } = manifest;
    const files = await this.filesOf(node, version, manifest);
    const next = manifest.rollout;
    const rollout = next && { ...next, files: await this.filesOf(node, next.version) };
    const told = (one: Rollout | undefined) => `${one?.name}/${one?.version}/${one?.share}/${one?.region}`;
    const isOther = version !== this.version || told(rollout) !== told(this.rollout);
    this.version = version;
    this.files = files;
    this.rollout = rollout;
    this.etag = answer.etag;
    return isOther;
  }

  /** The files of a version: those that are here, or from a node. */
  private async filesOf(node: string, version: string, manifest?: Manifest): Promise<Files> {
    const held = [this, this.rollout].find((one) => one?.version === version);
    if (held !== undefined) return held.files;
    const base = `${node}/v1/bundles/${this.name}`;
    const { files: listed } = manifest ?? manifestOf(await this.get(`${base}?version=${version}`, 0));
    const files = new Map<string, Uint8Array>();
    let lines = "";
    for (const { path, sha256 } of listed) {
      const content = (await this.get(`${base}/${encodeURI(path)}?version=${version}`, 0))?.body;
      if (content === undefined || (await digest(content)) !== sha256) throw new Error(`${path} lacks its digest`);
      files.set(path, content);
      lines += `${sha256}  ${path}\n`;
    }
    if ((await digest(new TextEncoder().encode(lines))) !== version) {
      throw new Error("the files aren't those of the version");
    }
    return files;
  }

  /** An answer and its entity tag; `undefined` if the tag is `etag`. */
  private async get(url: string, wait: number, etag?: string): Promise<Answer | undefined> {
    const headers = new Headers();
    if (this.token !== undefined) headers.set("authorization", `Bearer ${this.token}`);
    if (etag !== undefined) headers.set("if-none-match", etag);
    const response = await fetch(url, { headers, signal: AbortSignal.timeout((wait + 10) * 1_000) });
    if (response.status === 304) return undefined;
    if (!response.ok) throw new Error(`it answers ${response.status}: ${await response.text()}`);
    return { body: new Uint8Array(await response.arrayBuffer()), etag: response.headers.get("etag") ?? undefined };
  }
}

function manifestOf(answer: Answer | undefined): Manifest {
  if (answer === undefined) throw new Error("it answers without a manifest");
  return JSON.parse(new TextDecoder().decode(answer.body)) as Manifest;
}

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function main(node: string, name: string, tokenFile?: string): Promise<void> {
  const token = tokenFile === undefined ? undefined : (await import("node:fs")).readFileSync(tokenFile, "ascii");
  const bundle = new Bundle([node], name, token?.split("\n")[0]?.trim());
  const shown = (files: Files) => Object.fromEntries([...files.keys()].sort().map((path) => [path, text(files, path)]));
  await bundle.follow(() => {
    const { version, rollout } = bundle;
    const files = shown(bundle.files);
    const next = rollout && { ...rollout, files: shown(rollout.files) };
    console.log(JSON.stringify(next ? { version, files, rollout: next } : { version, files }));
  });
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("bundles.ts")) {
  const [node, name, tokenFile] = process.argv.slice(2);
  if (node === undefined || name === undefined) throw new Error("write: bundles.ts NODE NAME [TOKEN_FILE]");
  await main(node, name, tokenFile);
}
