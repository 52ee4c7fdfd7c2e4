// The native gateway as a service of systemd: sockets that it passes, and what it is told.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask, dial } from "./asking.js";
import { Gateway, TOP, folder } from "./gateway.js";
import { onStop, stopAll, until } from "./harness.js";
import { Endpoint } from "./held.js";
import { isNative } from "./native.js";

const config = `${TOP}state_dir = "state"\n`;
let endpoint: Endpoint;
beforeAll(async () => {
  endpoint = await Endpoint.start();
});
afterAll(stopAll);

describe.skipIf(!isNative)("the native gateway under systemd", () => {
  /** A socket as systemd makes it, which this process doesn't read. */
  async function listening() {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    return { server, address: `127.0.0.1:${(server.address() as AddressInfo).port}` };
  }
  /** Starts the program as systemd does: with the sockets from 3 on, and its own id in LISTEN_PID. */
  const by = ["sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"'];

  test("its sockets are served by name and address, and go over at a takeover", async () => {
    const edge = await listening();
    const other = await listening();
    const gateway = await Gateway.start({
      config: `listen = "${edge.address}"\nrules = "rules.json"\nthreads = 1\nstate_dir = "state"\n`,
      files: { "rules.json": endpoint.local() },
      by,
      stdio: ["ignore", "ignore", "pipe", (edge.server as any)._handle, (other.server as any)._handle],
      env: { LISTEN_FDS: "2", LISTEN_FDNAMES: "edge:dns" },
    });
    edge.server.close();
    other.server.close();
    expect(gateway.address).toBe(edge.address);
    expect((await ask(edge.address)).region).toBe("eu-frankfurt");
    const closed = await gateway.line(({ message }) =>
      /is closed: the configuration doesn't listen there/.test(message),
    );
    expect(closed.message).toContain(other.address);
    await expect(dial(other.address)).rejects.toThrow("ECONNREFUSED");
    const next = await Gateway.start({ at: gateway.folder, options: ["--takeover"] });
    expect(await gateway.exit).toEqual([0, null]);
    expect((await ask(next.address)).region).toBe("eu-frankfurt");
  });

  test("sockets that are meant for another process are left alone", async () => {
    const { server, address } = await listening();
    const files = { "rules.json": endpoint.local() };
    const gateway = Gateway.launch({
      config: `listen = "${address}"\n`,
      files,
      stdio: ["ignore", "ignore", "pipe", (server as any)._handle],
      env: { LISTEN_FDS: "1", LISTEN_FDNAMES: "edge", LISTEN_PID: "1" },
    });
    expect(await gateway.exit).toEqual([1, null]);
    server.close();
  });

  test("it is told of READY, of the process that takes over, and of STOPPING", async () => {
    const at = folder();
    const socket = join(at, "notify");
    const script =
      "import os, socket, sys\n" +
      "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\n" +
      "s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)\nprint('bound', flush=True)\n" +
      "while True:\n    text, more, *_ = s.recvmsg(4096, 64)\n" +
      "    pid = int.from_bytes(more[0][2][:4], 'little')\n    print(pid, text.decode(), flush=True)\n";
    const manager = spawn("python3", ["-c", script, socket], { stdio: ["ignore", "pipe", "inherit"] });
    onStop(() => manager.kill());
    const heard: string[] = [];
    createInterface({ input: manager.stdout }).on("line", (line) => heard.push(line));
    await until(
      async () => heard.join(),
      (text) => text === "bound",
    );
    const env = { NOTIFY_SOCKET: socket };
    const old = await Gateway.start({ config, files: { "rules.json": endpoint.local() }, env });
    await until(
      async () => heard.at(-1),
      (line) => line === `${old.child.pid} READY=1`,
    );
    const next = await Gateway.start({ at: old.folder, options: ["--takeover"], env });
    expect(await old.exit).toEqual([0, null]);
    const pid = next.child.pid;
    await until(
      async () => heard.length,
      (count) => count >= 4,
    );
    // The old process names the new one first, for systemd listens to the main process.
    expect(heard.slice(2)).toEqual([`${old.child.pid} MAINPID=${pid}`, `${pid} READY=1`]);
    next.child.kill("SIGTERM");
    expect(await next.exit).toEqual([0, null]);
    await until(
      async () => heard.at(-1),
      (line) => line === `${pid} STOPPING=1`,
    );
    expect(heard.length).toBe(5);
  });
});
