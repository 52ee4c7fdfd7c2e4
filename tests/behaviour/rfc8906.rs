//! RFC 8906 §8: the tests by which operators find servers that fail to communicate, each by the command the RFC gives,
//! over UDP and TCP.

use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::text_of;

use crate::fixture::{World, ZONE};

/// One test of §8: what dig is told, and what its answer must show and must not.
struct Case {
    section: &'static str,
    name: &'static str,
    dig: &'static str,
    expect: &'static [&'static str],
    forbid: &'static [&'static str],
}

const SOA: &str = "\tSOA\t";
const OPT: &str = "EDNS: version: 0";
const AA: &str = "qr aa";
const NOERROR: &str = "status: NOERROR";
const BADVERS: &str = "status: BADVERS";
const NO_OPT: &str = "EDNS:";
const MBZ: &str = "MBZ";

#[rustfmt::skip] // a table
const CASES: [Case; 19] = [
    Case { section: "8.1.1", name: "is the server configured for the zone", dig: "+noedns +noad +norec soa",
           expect: &[NOERROR, SOA, AA], forbid: &[NO_OPT, MBZ] },
    Case { section: "8.1.2", name: "unknown type", dig: "+noedns +noad +norec type1000",
           expect: &[NOERROR, AA, "ANSWER: 0"], forbid: &[NO_OPT, MBZ] },
    Case { section: "8.1.3.1", name: "CD=1", dig: "+noedns +noad +norec +cd soa",
           expect: &[NOERROR, SOA, AA], forbid: &[NO_OPT, MBZ, " ra"] },
    Case { section: "8.1.3.2", name: "AD=1", dig: "+noedns +norec +ad soa",
           expect: &[NOERROR, SOA, AA], forbid: &[NO_OPT, MBZ, " ad"] },
    Case { section: "8.1.3.3", name: "reserved bit", dig: "+noedns +noad +norec +zflag soa",
           expect: &[NOERROR, SOA, AA], forbid: &[NO_OPT, MBZ] },
    Case { section: "8.1.3.4", name: "RD=1", dig: "+noedns +noad +rec soa",
           expect: &[NOERROR, SOA, AA, " rd"], forbid: &[NO_OPT, MBZ, " ra;"] },
    Case { section: "8.1.4", name: "unknown opcode", dig: "+noedns +noad +opcode=15 +norec +header-only",
           expect: &["status: NOTIMP", "opcode: RESERVED15"], forbid: &[NO_OPT, MBZ, SOA, " aa"] },
    Case { section: "8.1.5", name: "TCP", dig: "+noedns +noad +norec +tcp soa",
           expect: &[NOERROR, SOA, AA], forbid: &[NO_OPT, MBZ] },
    Case { section: "8.2.1", name: "minimal EDNS", dig: "+nocookie +edns=0 +noad +norec soa",
           expect: &[NOERROR, SOA, AA, OPT], forbid: &[MBZ] },
    Case { section: "8.2.2", name: "EDNS version negotiation", dig: "+nocookie +edns=1 +noednsneg +noad +norec soa",
           expect: &[BADVERS, OPT], forbid: &[SOA, " aa", MBZ] },
    Case { section: "8.2.3", name: "unknown EDNS options", dig: "+nocookie +edns=0 +noad +norec +ednsopt=100 soa",
           expect: &[NOERROR, SOA, AA, OPT], forbid: &["OPT=100", MBZ] },
    Case { section: "8.2.4", name: "unknown EDNS flags", dig: "+nocookie +edns=0 +noad +norec +ednsflags=0x40 soa",
           expect: &[NOERROR, SOA, AA, OPT], forbid: &[MBZ] },
    Case { section: "8.2.5", name: "EDNS version negotiation with unknown flags",
           dig: "+nocookie +edns=1 +noednsneg +noad +norec +ednsflags=0x40 soa",
           expect: &[BADVERS, OPT], forbid: &[SOA, " aa", MBZ] },
    Case { section: "8.2.6", name: "EDNS version negotiation with unknown options",
           dig: "+nocookie +edns=1 +noednsneg +noad +norec +ednsopt=100 soa",
           expect: &[BADVERS, OPT], forbid: &[SOA, " aa", "OPT=100", MBZ] },
    Case { section: "8.2.7", name: "truncated responses", dig: "+nocookie +norec +dnssec +bufsize=512 +ignore txt big",
           expect: &[NOERROR, OPT], forbid: &[MBZ] },
    Case { section: "8.2.8", name: "DO=1", dig: "+nocookie +edns=0 +noad +norec +dnssec soa",
           expect: &[NOERROR, SOA, AA, OPT, "flags: do"], forbid: &[MBZ] },
    Case { section: "8.2.9", name: "EDNS version negotiation with DO=1",
           dig: "+nocookie +edns=1 +noednsneg +noad +norec +dnssec soa",
           expect: &[BADVERS, OPT, "flags: do"], forbid: &[SOA, " aa", MBZ] },
    Case { section: "8.2.10", name: "several defined EDNS options",
           dig: "+edns=0 +noad +norec +cookie +nsid +expire +subnet=0.0.0.0/0 soa",
           expect: &[NOERROR, SOA, AA, OPT, "(good)", "CLIENT-SUBNET: 0.0.0.0/0/0"], forbid: &[MBZ, "EXPIRE"] },
    // §3.1.5 and the stateful side of §3.2: an answer that didn't fit comes whole by TCP.
    Case { section: "3.1.5", name: "what was truncated comes by TCP", dig: "+nocookie +norec +bufsize=512 +tcp txt big",
           expect: &[NOERROR, AA, "ANSWER: 7"], forbid: &[" tc", MBZ] },
];

fn ask(node: &Node, case: &Case, by_tcp: bool) -> Result<(), String> {
    let server = format!("@{}", node.dns.ip());
    let port = node.dns.port().to_string();
    let mut arguments = vec![server.as_str(), "-p", &port, "+tries=1", "+time=5"];
    let mut name = "ai.example.com";
    for word in case.dig.split(' ') {
        if word == "big" {
            name = "big.ai.example.com";
        } else {
            arguments.push(word);
        }
    }
    arguments.extend(by_tcp.then_some("+tcp"));
    if !case.dig.contains("header-only") {
        arguments.push(name);
    }
    let reported = text_of("dig", &arguments);
    let missing = case.expect.iter().find(|part| !reported.contains(**part));
    let wrong = case.forbid.iter().find(|part| reported.contains(**part));
    match (missing, wrong) {
        (None, None) => Ok(()),
        (Some(part), _) => Err(format!("{}: {part:?} is missing in\n{reported}", case.section)),
        (None, Some(part)) => Err(format!("{}: {part:?} is in\n{reported}", case.section)),
    }
}

#[test]
fn rfc8906_8_every_test_passes() {
    let node = Setup::new(&World::start().rules(1), ZONE).start();
    let mut failures = Vec::new();
    println!("{:<8} {:<46} {:<6} {:<6}", "section", "test", "UDP", "TCP");
    for case in &CASES {
        let mut row = Vec::new();
        for by_tcp in [false, true] {
            if !by_tcp && case.dig.contains("+tcp") {
                row.push("-");
                continue;
            }
            row.push(match ask(&node, case, by_tcp) {
                Ok(()) => "ok",
                Err(failure) => {
                    failures.push(failure);
                    "FAILED"
                }
            });
        }
        println!("{:<8} {:<46} {:<6} {:<6}", case.section, case.name, row[0], row[1]);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
