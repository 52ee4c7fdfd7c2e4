// The Worker's behaviour tests: they drive the module that scripts/build-edge made, on workerd.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  // Else it makes a node_modules of its own beside this file.
  cacheDir: fileURLToPath(new URL("../../node_modules/.vite", import.meta.url)),
  root: fileURLToPath(new URL(".", import.meta.url)),
  test: {
    include: ["*.spec.ts"],
    // What workerd and the Worker log matters where a test fails.
    silent: "passed-only",
    // Starting workerd on a busy two-core machine takes its time.
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
