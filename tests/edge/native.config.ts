// The same specs on the native gateway, as far as it does what they need. Left out are specs of the Worker itself (its
// Wasm, its JavaScript, workerd's configuration), those that drive Miniflare or have single tests that do, and one that
// depends on how many large bodies overlap: shaping.
import { defineConfig } from "vitest/config";
import workers from "./vitest.config.js";

const SPECS = [
  "aliases",
  "alive",
  "batches",
  "bundles",
  "crowd",
  "differential",
  "drained",
  "drills",
  "explain",
  "failover",
  "faults",
  "feeds",
  "filenames",
  "first_token",
  "hostile",
  "isolate",
  "judged",
  "keepalive",
  "kept",
  "load",
  "logs",
  "models",
  "native",
  "native_config",
  "native_drain",
  "native_limits",
  "native_metrics",
  "native_place",
  "native_proxy",
  "native_systemd",
  "native_takeover",
  "native_tls",
  "observations",
  "pins",
  "piped",
  "reaching",
  "releases",
  "replicas",
  "rollouts",
  "shares",
  "steering",
  "stream",
  "tenants",
  "uploads",
  "whole",
  "wildcard",
];

export default defineConfig({
  ...workers,
  test: { ...workers.test, include: SPECS.map((name) => `${name}.spec.ts`) },
});
