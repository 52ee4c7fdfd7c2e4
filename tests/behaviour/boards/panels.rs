//! The panels of each board of `deploy/grafana`: title, unit, and queries with their legends.

/// A panel: its title, the unit of its values, and its queries with their legends.
pub(crate) type Panel = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// A board.
pub(crate) struct Board {
    /// Its file, from the root of the repository.
    pub(crate) file: &'static str,
    /// Its title.
    pub(crate) title: &'static str,
    /// Its name in addresses.
    pub(crate) uid: &'static str,
    /// The variable that selects what is shown: name, label, and the query for its values.
    pub(crate) variable: (&'static str, &'static str, &'static str),
    /// Its panels, two in a row.
    pub(crate) panels: &'static [Panel],
}

/// All boards.
pub(crate) const BOARDS: [Board; 3] = [
    Board {
        file: "deploy/grafana/bailiwick-dns.json",
        title: "bailiwick: DNS nodes",
        uid: "bailiwick-dns",
        variable: ("node", "Node", "label_values(bailiwick_build_info, instance)"),
        panels: NODES,
    },
    Board {
        file: "deploy/grafana/bailiwick-traffic.json",
        title: "bailiwick: what Workers observed",
        uid: "bailiwick-traffic",
        // Every node has the sums of all Workers.
        variable: ("node", "Node (one has it all)", "label_values(bailiwick_observing_isolates, instance)"),
        panels: TRAFFIC,
    },
    Board {
        file: "deploy/grafana/bailiwick-edge.json",
        title: "bailiwick: the edge on machines of one's own",
        uid: "bailiwick-edge",
        variable: ("edge", "Process", "label_values(bailiwick_edge_start_time_seconds, instance)"),
        panels: EDGE,
    },
];

const NODES: &[Panel] = &[
    (
        "Fence violations",
        "short",
        &[
            ("max by (instance, of) (bailiwick_fence_violations{instance=~\"$node\"})", "{{instance}} {{of}}"),
            (
                "time() - max by (instance) (bailiwick_fences_checked_seconds{instance=~\"$node\"})",
                "{{instance}} checked s ago",
            ),
        ],
    ),
    (
        "Regions: 1 is down",
        "short",
        &[
            ("max by (region) (bailiwick_region_status{instance=~\"$node\",status=\"down\"})", "{{region}}"),
            ("max by (region) (bailiwick_region_forced{instance=~\"$node\"}) * 2", "{{region}} forced (2)"),
        ],
    ),
    (
        "For how long each region has its status",
        "s",
        &[("time() - max by (region) (bailiwick_region_since_seconds{instance=~\"$node\"})", "{{region}}")],
    ),
    (
        "Steered answers by region",
        "reqps",
        &[(
            "sum by (service, region) (rate(bailiwick_steered_answers_total{instance=~\"$node\"}[5m]))",
            "{{service}} → {{region}}",
        )],
    ),
    (
        "Probes that fail",
        "percentunit",
        &[(
            "sum by (region, endpoint) \
            (rate(bailiwick_monitor_probes_total{instance=~\"$node\",result=\"failed\"}[5m])) \
             / sum by (region, endpoint) (rate(bailiwick_monitor_probes_total{instance=~\"$node\"}[5m]))",
            "{{region}} {{endpoint}}",
        )],
    ),
    (
        "Overrides: time left",
        "s",
        &[("bailiwick_override_ends_seconds{instance=~\"$node\"} - time()", "{{region}} {{endpoint}}")],
    ),
    (
        "Load of regions, 1 is full",
        "percentunit",
        &[
            ("max by (region) (bailiwick_region_load_ratio{instance=~\"$node\"})", "{{region}}"),
            (
                "max by (region, mark) (bailiwick_plan_region_mark_ratio{instance=~\"$node\"})",
                "{{region}} mark {{mark}}",
            ),
        ],
    ),
    (
        "Clients that are moved because of load",
        "percentunit",
        &[("max by (from, to) (bailiwick_plan_share_ratio{instance=~\"$node\"})", "{{from}} → {{to}}")],
    ),
    (
        "Fences without one of their regions, 1 is full",
        "percentunit",
        &[(
            "topk(20, max by (fence, lost) (bailiwick_fence_load_without_region_ratio{instance=~\"$node\"}))",
            "{{fence}} without {{lost}}",
        )],
    ),
    (
        "Replicas: lag",
        "s",
        &[
            ("max by (region, replica) (bailiwick_replica_lag_seconds{instance=~\"$node\"})", "{{region}} {{replica}}"),
            (
                "max by (region, replica) (bailiwick_replica_withheld{instance=~\"$node\"})",
                "{{region}} {{replica}} withheld (1)",
            ),
        ],
    ),
    (
        "Releases: endpoints that run something else, and those of which nothing is known",
        "short",
        &[
            (
                "max by (region, endpoint, release) (bailiwick_release_skew{instance=~\"$node\"})",
                "{{region}}/{{endpoint}} {{release}} skew",
            ),
            (
                "1 - max by (region, endpoint, release) (bailiwick_release_known{instance=~\"$node\"})",
                "{{region}}/{{endpoint}} {{release}} unknown",
            ),
        ],
    ),
    (
        "Answers by transport",
        "reqps",
        &[("sum by (transport) (rate(bailiwick_queries_total{instance=~\"$node\"}[5m]))", "{{transport}}")],
    ),
    (
        "Answers by response code",
        "reqps",
        &[("sum by (rcode) (rate(bailiwick_queries_total{instance=~\"$node\"}[5m]))", "{{rcode}}")],
    ),
    (
        "Time to answer, 50 and 99 in a hundred",
        "s",
        &[
            (
                "histogram_quantile(0.5, sum by (transport, le) \
                (rate(bailiwick_answer_seconds_bucket{instance=~\"$node\"}[5m])))",
                "{{transport}} p50",
            ),
            (
                "histogram_quantile(0.99, sum by (transport, le) \
                (rate(bailiwick_answer_seconds_bucket{instance=~\"$node\"}[5m])))",
                "{{transport}} p99",
            ),
        ],
    ),
    (
        "Connections and their limit",
        "short",
        &[
            ("sum by (instance) (bailiwick_connections{instance=~\"$node\"})", "{{instance}}"),
            ("bailiwick_connections_limit{instance=~\"$node\",scope=\"all\"}", "{{instance}} limit"),
        ],
    ),
    (
        "Rules in service",
        "short",
        &[(
            "max by (instance, revision) (bailiwick_rules_info{instance=~\"$node\"})",
            "{{instance}}: revision {{revision}}",
        )],
    ),
    (
        "Signatures and certificates: time left",
        "s",
        &[
            ("min by (zone) (bailiwick_signed_until_seconds{instance=~\"$node\"}) - time()", "{{zone}}"),
            ("min by (files) (bailiwick_certificate_expires_seconds{instance=~\"$node\"}) - time()", "{{files}}"),
        ],
    ),
    (
        "What is refused or fails: 1 is bad",
        "short",
        &[
            ("max by (instance, source) (bailiwick_source_failing{instance=~\"$node\"})", "{{instance}} {{source}}"),
            ("max by (instance, task) (bailiwick_task_failing{instance=~\"$node\"})", "{{instance}} {{task}}"),
            ("max by (instance) (bailiwick_persist_failing{instance=~\"$node\"})", "{{instance}} state_dir"),
            ("max by (instance) (bailiwick_aggregate_failing{instance=~\"$node\"})", "{{instance}} aggregate"),
        ],
    ),
    (
        "Fleet: for how long a node may lack the newest rules",
        "s",
        &[("max by (instance) (bailiwick_fleet_lag_seconds{instance=~\"$node\"})", "{{instance}}")],
    ),
    (
        "Fleet: voters that aren't heard, and regions that a guard holds",
        "short",
        &[
            (
                "max by (instance) (bailiwick_fleet_voters{instance=~\"$node\"} - \
             bailiwick_fleet_voters_fresh{instance=~\"$node\"})",
                "{{instance}} voters missing",
            ),
            ("max by (service) (bailiwick_guard_holding{instance=~\"$node\"})", "{{service}} held"),
        ],
    ),
];

const TRAFFIC: &[Panel] = &[
    (
        "Requests by region",
        "reqps",
        &[(
            "max by (service, region) (sum by (instance, service, region) \
             (rate(bailiwick_observed_requests_total{instance=~\"$node\"}[5m])))",
            "{{service}} → {{region}}",
        )],
    ),
    (
        "Requests by how they ended",
        "reqps",
        &[(
            "max by (code) (sum by (instance, code) \
            (rate(bailiwick_observed_requests_total{instance=~\"$node\"}[5m])))",
            "{{code}}",
        )],
    ),
    (
        "Clients by jurisdiction, and the regions that they go to",
        "reqps",
        &[(
            "max by (clients, region) (sum by (instance, clients, region) \
             (rate(bailiwick_observed_requests_total{instance=~\"$node\"}[5m])))",
            "{{clients}} → {{region}}",
        )],
    ),
    (
        "Attempts that weren't committed",
        "reqps",
        &[(
            "max by (endpoint, outcome) (sum by (instance, endpoint, outcome) \
             (rate(bailiwick_observed_attempts_total{instance=~\"$node\",outcome!=\"committed\"}[5m])))",
            "{{endpoint}} {{outcome}}",
        )],
    ),
    (
        "Time to the first token, 50 and 95 in a hundred",
        "s",
        &[
            (
                "histogram_quantile(0.5, max by (region, le) (sum by (instance, region, le) \
             (rate(bailiwick_observed_first_token_seconds_bucket{instance=~\"$node\"}[5m]))))",
                "{{region}} p50",
            ),
            (
                "histogram_quantile(0.95, max by (region, le) (sum by (instance, region, le) \
             (rate(bailiwick_observed_first_token_seconds_bucket{instance=~\"$node\"}[5m]))))",
                "{{region}} p95",
            ),
        ],
    ),
    (
        "Time between tokens, 95 in a hundred",
        "s",
        &[(
            "histogram_quantile(0.95, max by (region, le) (sum by (instance, region, le) \
             (rate(bailiwick_observed_between_tokens_seconds_bucket{instance=~\"$node\"}[5m]))))",
            "{{region}}",
        )],
    ),
    (
        "Time of requests, 95 in a hundred",
        "s",
        &[(
            "histogram_quantile(0.95, max by (service, le) (sum by (instance, service, le) \
             (rate(bailiwick_observed_request_seconds_bucket{instance=~\"$node\"}[5m]))))",
            "{{service}}",
        )],
    ),
    (
        "Tokens",
        "short",
        &[(
            "max by (region, direction) (sum by (instance, region, direction) \
             (rate(bailiwick_observed_tokens_total{instance=~\"$node\"}[5m])))",
            "{{region}} {{direction}}",
        )],
    ),
    (
        "Requests in flight",
        "short",
        &[("max by (region, endpoint) (bailiwick_observed_in_flight{instance=~\"$node\"})", "{{region}}/{{endpoint}}")],
    ),
    (
        "Why models stopped",
        "reqps",
        &[(
            "max by (reason) (sum by (instance, reason) \
            (rate(bailiwick_observed_finish_total{instance=~\"$node\"}[5m])))",
            "{{reason}}",
        )],
    ),
    (
        "Isolates, and batches that are missing",
        "short",
        &[
            ("max by (instance) (bailiwick_observing_isolates{instance=~\"$node\"})", "{{instance}} isolates"),
            (
                "increase(bailiwick_observation_batches_missed_total{instance=~\"$node\"}[5m])",
                "{{instance}} batches missed in 5 min",
            ),
        ],
    ),
    (
        "The aggregate: requests by how they are told, and those that are missing",
        "short",
        &[
            ("sum by (told) (increase(bailiwick_aggregate_requests_total{instance=~\"$node\"}[5m]))", "{{told}}"),
            (
                "sum by (reason) (increase(bailiwick_aggregate_requests_lost_total{instance=~\"$node\"}[5m]))",
                "lost: {{reason}}",
            ),
        ],
    ),
];

const EDGE: &[Panel] = &[
    (
        "Requests by how they ended",
        "reqps",
        &[("sum by (code) (rate(bailiwick_edge_requests_total{instance=~\"$edge\"}[5m]))", "{{code}}")],
    ),
    (
        "Attempts by what became of them",
        "reqps",
        &[
            (
                "sum by (region, endpoint, outcome) (rate(bailiwick_edge_attempts_total{instance=~\"$edge\"}[5m]))",
                "{{region}}/{{endpoint}} {{outcome}}",
            ),
            ("sum(rate(bailiwick_edge_retries_total{instance=~\"$edge\"}[5m]))", "retries"),
        ],
    ),
    (
        "Endpoints that rest",
        "short",
        &[(
            "max by (region, endpoint) (bailiwick_edge_endpoint_resting{instance=~\"$edge\"})",
            "{{region}}/{{endpoint}}",
        )],
    ),
    (
        "Age of the rules and of health",
        "s",
        &[
            ("max by (instance) (bailiwick_edge_rules_age_seconds{instance=~\"$edge\"})", "{{instance}} rules"),
            (
                "max by (instance, source) (bailiwick_edge_health_report_age_seconds{instance=~\"$edge\"})",
                "{{instance}} health of {{source}}",
            ),
        ],
    ),
    (
        "Rules in service",
        "short",
        &[("max by (instance) (bailiwick_edge_rules_revision{instance=~\"$edge\"})", "{{instance}}")],
    ),
    (
        "Looks for rules and health, and posts, by outcome",
        "reqps",
        &[
            (
                "sum by (source, outcome) (rate(bailiwick_edge_rules_looks_total{instance=~\"$edge\"}[5m]))",
                "rules {{source}} {{outcome}}",
            ),
            (
                "sum by (source, outcome) (rate(bailiwick_edge_health_looks_total{instance=~\"$edge\"}[5m]))",
                "health {{source}} {{outcome}}",
            ),
            (
                "sum by (source, outcome) (rate(bailiwick_edge_observation_posts_total{instance=~\"$edge\"}[5m]))",
                "observations {{source}} {{outcome}}",
            ),
        ],
    ),
    (
        "Requests under way",
        "short",
        &[("sum by (instance) (bailiwick_edge_requests_in_flight{instance=~\"$edge\"})", "{{instance}}")],
    ),
    (
        "Memory",
        "bytes",
        &[
            ("max by (instance) (bailiwick_edge_memory_bytes{instance=~\"$edge\"})", "{{instance}} Wasm"),
            ("max by (instance) (bailiwick_edge_held_bytes{instance=~\"$edge\"})", "{{instance}} bodies"),
        ],
    ),
    (
        "What a quota still allows, and for how long it is closed",
        "short",
        &[
            ("min by (quota, unit) (bailiwick_edge_quota_left{instance=~\"$edge\"})", "{{quota}} {{unit}}"),
            ("max by (quota) (bailiwick_edge_quota_closed_seconds{instance=~\"$edge\"})", "{{quota}} closed (s)"),
        ],
    ),
    (
        "Events",
        "reqps",
        &[("sum by (event) (rate(bailiwick_edge_events_total{instance=~\"$edge\"}[5m]))", "{{event}}")],
    ),
];
