# Runs the Worker on workerd on your own machine, as docs/self-hosting.md explains. From the project's root:
#   scripts/build-edge && RULES_URLS=https://ns1.example.com:8443/v1/rules npx workerd serve edge-worker/workerd.capnp

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),

    # Where the Worker's own requests may go: to endpoints, and to the DNS nodes with rules and health. `private`
    # includes loopback.
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
  ],

  sockets = [(
    name = "http",
    # Loopback, for a front on the same machine. Never use an address that others can reach: whoever connects here can
    # say where a request comes from. In production `--socket-addr http=unix:/run/bailiwick/edge.sock` is better.
    # docs/self-hosting.md says why.
    address = "127.0.0.1:8787",
    service = "edge",
    http = (
      # The header in which the front says where a request comes from: {"country": "DE"}, with "latitude" and
      # "longitude" if known. The front must set it and CF-Connecting-IP on every request, and replace the client's.
      cfBlobHeader = "bailiwick-cf",
    ),
  )],
);

const edge :Workerd.Worker = (
  modules = [
    (name = "index.js", esModule = embed "build/index.js"),
    (name = "index_bg.wasm", wasm = embed "build/index_bg.wasm"),
  ],

  # The same as in wrangler.toml.
  compatibilityDate = "2026-05-03",
  compatibilityFlags = ["enable_request_signal", "global_fetch_strictly_public"],

  # Variables and secrets, from the environment of the process. Those that aren't set there are missing here.
  bindings = [
    (name = "RULES_URL", fromEnvironment = "RULES_URL"),
    (name = "RULES_URLS", fromEnvironment = "RULES_URLS"),
    (name = "RULES_TOKEN", fromEnvironment = "RULES_TOKEN"),
    (name = "RULES_REFRESH_SECONDS", fromEnvironment = "RULES_REFRESH_SECONDS"),
    (name = "RULES_MAX_AGE", fromEnvironment = "RULES_MAX_AGE"),
    (name = "HEALTH_URLS", fromEnvironment = "HEALTH_URLS"),
    (name = "HEALTH_TOKEN", fromEnvironment = "HEALTH_TOKEN"),
    (name = "LEASES_URLS", fromEnvironment = "LEASES_URLS"),
    (name = "OBSERVATIONS_URLS", fromEnvironment = "OBSERVATIONS_URLS"),
    (name = "OBSERVATIONS_SECONDS", fromEnvironment = "OBSERVATIONS_SECONDS"),
    (name = "HEALTH_REFRESH_SECONDS", fromEnvironment = "HEALTH_REFRESH_SECONDS"),
    (name = "LOG", fromEnvironment = "LOG"),
    (name = "STATE_KEY", fromEnvironment = "STATE_KEY"),
    (name = "LOGS_KEY", fromEnvironment = "LOGS_KEY"),
    (name = "RECEIPT_KEY", fromEnvironment = "RECEIPT_KEY"),
    (name = "RECEIPT_PUBLIC_KEYS", fromEnvironment = "RECEIPT_PUBLIC_KEYS"),
    (name = "EXPLAIN_TOKEN", fromEnvironment = "EXPLAIN_TOKEN"),

    # One line for each `"secret"` that the rules name.
    (name = "FRA_KEY", fromEnvironment = "FRA_KEY"),
  ],
);
