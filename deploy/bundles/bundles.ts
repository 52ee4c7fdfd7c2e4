// Follows a bundle of bailiwick: docs/bundles.md. Takes nodes, a name and a token; holds the files of one version.
//
//     const bundle = new Bundle(["https://ns1.example.com:8053", "https://ns2.example.com:8053"], "prompts", token);
//     await bundle.refresh(); // throws if no node gives it
//     void bundle.follow();
//     const system = bundle.text("chat/system.md"); // read `files` once for each request
//
// Needs `fetch` and Web Crypto, as Node has them. Node from 22.18 runs it as it is, and it prints each version then:
//
//     node bundles.ts http://127.0.0.1:8053 prompts [TOKEN_FILE]

const WAIT = 30; // seconds for which a node waits for another version, 60 at most
const PAUSE = 5_000; // milliseconds after an answer of no use

interface Manifest {
  version: string;
  files: { path: string; bytes: number; sha256: string }[];
}

export class Bundle {
  version: string | undefined;
  /** By path; replaced as a whole. */
  files: ReadonlyMap<string, Uint8Array> = new Map();
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

  text(path: string): string {
    const content = this.files.get(path);
    if (content === undefined) throw new Error(`bundle ${this.name} has no ${path}`);
    return new TextDecoder().decode(content);
  }

  /** Gets another version if there is one, from the first node that gives it. Returns whether there was one. */
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
    const answer = await this.get(`${node}/v1/bundles/${this.name}?${question}`, wait, this.version);
    if (answer === undefined) return false;
    const manifest = JSON.parse(new TextDecoder().decode(answer)) as Manifest;
    const files = new Map<string, Uint8Array>();
    let lines = "";
    for (const { path, sha256 } of manifest.files) {
      const url = `${node}/v1/bundles/${this.name}/${encodeURI(path)}?version=${manifest.version}`;
      const content = await this.get(url, 0);
      if (content === undefined || (await digest(content)) !== sha256) throw new Error(`${path} lacks its digest`);
      files.set(path, content);
      lines += `${sha256}  ${path}\n`;
    }
    if ((await digest(new TextEncoder().encode(lines))) !== manifest.version) {
      throw new Error("the files aren't those of the version");
    }
    const isOther = manifest.version !== this.version;
    this.version = manifest.version;
    this.files = files;
    return isOther;
  }

  private async get(url: string, wait: number, version?: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const headers = new Headers();
    if (this.token !== undefined) headers.set("authorization", `Bearer ${this.token}`);
    if (version !== undefined) headers.set("if-none-match", `"${version}"`);
    const response = await fetch(url, { headers, signal: AbortSignal.timeout((wait + 10) * 1_000) });
    if (response.status === 304) return undefined;
    if (!response.ok) throw new Error(`it answers ${response.status}: ${await response.text()}`);
    return new Uint8Array(await response.arrayBuffer());
  }
}

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function main(node: string, name: string, tokenFile?: string): Promise<void> {
  const token = tokenFile === undefined ? undefined : (await import("node:fs")).readFileSync(tokenFile, "ascii");
  const bundle = new Bundle([node], name, token?.split("\n")[0]?.trim());
  await bundle.follow(() => {
    const files = Object.fromEntries([...bundle.files.keys()].sort().map((path) => [path, bundle.text(path)]));
    console.log(JSON.stringify({ version: bundle.version, files }));
  });
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("bundles.ts")) {
  const [node, name, tokenFile] = process.argv.slice(2);
  if (node === undefined || name === undefined) throw new Error("write: bundles.ts NODE NAME [TOKEN_FILE]");
  await main(node, name, tokenFile);
}
