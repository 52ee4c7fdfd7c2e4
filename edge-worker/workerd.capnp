# The Worker on workerd in a region of one's own. docs/self-hosting.md tells how; from the project's root:
#   scripts/build-edge && RULES_URLS=https://ns1.example.com:8443/v1/rules npx workerd serve edge-worker/workerd.capnp

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),

    # Where the Worker's own requests go: endpoints, and the DNS nodes with rules and health. `private` takes loopback too.
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
  ],

  sockets = [(
    name = "http",
    # Loopback, for a front on the same machine. Never an address that others reach: whoever speaks to this socket says where
    # it comes from. In service `--socket-addr http=unix:/run/bailiwick/edge.sock` is better: docs/self-hosting.md tells why.
    address = "127.0.0.1:8787",
    service = "edge",
    http = (
      # The front's word on where a request comes from: {"country": "DE"}, with "latitude" and "longitude" if it knows them.
      # The front has to set this header and CF-Connecting-IP on every request, whatever the client wrote there.
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

  # Variables and secrets, from the environment of the process. One that isn't set there is not there.
  bindings = [
    (name = "RULES_URL", fromEnvironment = "RULES_URL"),
    (name = "RULES_URLS", fromEnvironment = "RULES_URLS"),
    (name = "RULES_TOKEN", fromEnvironment = "RULES_TOKEN"),
    (name = "RULES_REFRESH_SECONDS", fromEnvironment = "RULES_REFRESH_SECONDS"),
    (name = "RULES_MAX_AGE", fromEnvironment = "RULES_MAX_AGE"),
    (name = "HEALTH_URLS", fromEnvironment = "HEALTH_URLS"),
    (name = "HEALTH_TOKEN", fromEnvironment = "HEALTH_TOKEN"),
    (name = "HEALTH_REFRESH_SECONDS", fromEnvironment = "HEALTH_REFRESH_SECONDS"),
    (name = "LOG", fromEnvironment = "LOG"),
    (name = "STATE_KEY", fromEnvironment = "STATE_KEY"),
    (name = "RECEIPT_KEY", fromEnvironment = "RECEIPT_KEY"),
    (name = "RECEIPT_PUBLIC_KEYS", fromEnvironment = "RECEIPT_PUBLIC_KEYS"),
    (name = "EXPLAIN_TOKEN", fromEnvironment = "EXPLAIN_TOKEN"),

    # One line for each `"secret"` that the rules name.
    (name = "FRA_KEY", fromEnvironment = "FRA_KEY"),
  ],
);
