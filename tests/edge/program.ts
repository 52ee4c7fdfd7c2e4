// The programs that tests run, as cargo has built them.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PACKAGES = { bailiwick: "bailiwick-dns", "bailiwick-edge": "bailiwick-edge" };

/** The path of a program. */
export function program(name: keyof typeof PACKAGES): string {
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../target", import.meta.url));
  const path = `${target}/debug/${name}`;
  if (!existsSync(path)) throw new Error(`${path} is missing; run cargo build --package ${PACKAGES[name]}`);
  return path;
}
