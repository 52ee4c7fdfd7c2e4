//! The keys of `[fleet]` and of the sections below it. Read by [`super::SECTIONS`].

use super::WhenMissing::{Nothing, Required, Value, Words};
use super::{Key, key};

/// The keys of `[fleet]`.
pub(super) const KEYS: &[Key] = &[
    key(
        "mode",
        "`\"files\"`, `\"peers\"` or `\"nats\"`",
        Value("\"files\""),
        "Where rules come from: `files` is this node's own file; `peers` is the highest valid revision of all peers; \
         `nats` is what is published in NATS. With `peers` and `nats`, `rules` is only the document to begin with, and \
         may be left out.",
    ),
    key(
        "peers",
        "list of URLs",
        Value("[]"),
        "The APIs of the other nodes. With `files` they are asked for their health alone, with `nats` for the rules to \
         begin with alone.",
    ),
    key("peers_token_file", "path", Nothing, "A file whose first line is the token that is sent to peers."),
    key("peers_ca_file", "path", Nothing, "The certificate authorities of the peers in PEM. Without it, the system's."),
    key(
        "poll",
        "duration from 100ms to 10m",
        Value("\"2s\""),
        "How often each peer is asked, give or take a fifth, or how often health is told over NATS.",
    ),
    key(
        "sends_aggregate",
        "boolean",
        Words("`true` with `nats`, where nodes take turns, on the `writer`, and where there is no other node"),
        "Whether this node sends the `aggregate` of the rules. Without NATS, one node that Workers post to does: if \
         it isn't the writer, set `false` on the writer.",
    ),
    key(
        "writer",
        "boolean",
        Value("false"),
        "Whether rules may be published here, by `bailiwick rules publish`. One node of a fleet is the writer.",
    ),
    key(
        "trusted_publishers",
        "list of public keys",
        Value("[]"),
        "Whose signatures are believed: keys as `bailiwick fleet keygen` prints them. Without any, rules need no \
         signature.",
    ),
    key(
        "stage",
        "`\"canary\"`, `\"early\"` or `\"rest\"`",
        Value("\"rest\""),
        "The part of the fleet that this node belongs to. A revision that is published for a stage is served by that \
         stage and those before it.",
    ),
];

/// The keys of `[fleet.gates]`.
pub(super) const GATES: &[Key] = &[
    key(
        "max_moved",
        "per cent from `\"1%\"` to `\"100%\"`",
        Nothing,
        "Which part of a service's clients may go to another region by one change.",
    ),
    key("max_denied", "per cent from `\"1%\"` to `\"100%\"`", Nothing, "Which part of them may lose their region."),
    key("min_regions", "integer from 1 to 1000", Nothing, "How many regions a fence has to keep that gets smaller."),
];

/// The keys of `[fleet.stages]`.
pub(super) const STAGES: &[Key] = &[
    key(
        "bake",
        "duration from 1s to 7d",
        Value("\"10m\""),
        "For how long every live node of a stage serves a revision before the next stage begins.",
    ),
    key(
        "max_servfail",
        "per cent from `\"1%\"` to `\"100%\"`",
        Value("\"1%\""),
        "By how many points the share of SERVFAIL may rise on a node.",
    ),
    key(
        "max_denied",
        "per cent from `\"1%\"` to `\"100%\"`",
        Value("\"1%\""),
        "By how many points the share of answers without a region may rise beyond what was predicted.",
    ),
    key(
        "max_shift",
        "per cent from `\"1%\"` to `\"100%\"`",
        Value("\"5%\""),
        "How many points the share of a region may be from what was predicted.",
    ),
    key(
        "min_answers",
        "integer from 1 to 1000000000",
        Value("500"),
        "How many answers are needed, before and after, to judge a service or a node.",
    ),
];

/// The keys of `[fleet.nats]`.
pub(super) const NATS: &[Key] = &[
    key(
        "servers",
        "list of URLs",
        Required,
        "The servers: `tls://nats1.example.com:4222`. List all of them. Without TLS (`nats://`) only loopback \
         addresses.",
    ),
    key("ca_file", "path", Nothing, "The certificate authorities of the servers in PEM. Without it, the system's."),
    key("cert_file", "path", Nothing, "The certificate in PEM that this node shows. Read again at each connection."),
    key("key_file", "path", Nothing, "Its private key in PEM. Read again at each connection."),
    key("nkey_file", "path", Nothing, "The file of the NKey's seed. Read again at each connection."),
];
