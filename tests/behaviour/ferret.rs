//! Zone semantics (RFC 1034 §4.3.2, 2308, 4592, 6672): the 3,169 cases of Ferret, each a zone and a query with what
//! BIND, NSD, Knot and PowerDNS answered. SIGCOMM research generated them; they lie in `tests/vectors/ferret`. A
//! response passes if its rcode, its AA bit and all three sections are those of an accepted one; the order of records
//! and the message id don't count.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bailiwick_dns::protocol::name::NameRef;
use bailiwick_dns::response::answer::{NoSteering, Responses};
use bailiwick_dns::response::wire::{Context, Outcome, Settings, Transport, respond};
use bailiwick_dns::zone::{Zone, file};
use bailiwick_dns::zones::{ServedZone, Zones};
use bailiwick_tests::dns::question;
use bailiwick_tests::geo::root;
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use serde_json::Value;

/// The type number of DNAME, which the decoder doesn't know.
const DNAME: u16 = 39;

/// How many cases the file holds.
const CASES: usize = 3169;

/// What of a response counts.
#[derive(Debug, PartialEq, Eq)]
struct Compared {
    rcode: String,
    authoritative: bool,
    /// Answer, authority and additional, each sorted.
    sections: [Vec<String>; 3],
}

impl Compared {
    /// An accepted response of a case.
    fn accepted(lines: &[Value]) -> Self {
        let mut compared = Self { rcode: String::new(), authoritative: false, sections: Default::default() };
        let mut section = None;
        for line in lines.iter().filter_map(Value::as_str) {
            match line.split_once(' ') {
                None => section = [";ANSWER", ";AUTHORITY", ";ADDITIONAL"].iter().position(|name| *name == line),
                Some(("rcode", code)) => code.clone_into(&mut compared.rcode),
                Some(("flags", flags)) => compared.authoritative = flags.split(' ').any(|flag| flag == "AA"),
                _ => {
                    if let Some(section) = section {
                        compared.sections[section].push(plain(line));
                    }
                }
            }
        }
        compared.sorted()
    }

    /// Our response.
    fn ours(message: &Message) -> Self {
        let lines = |records: &[Record]| records.iter().map(shown).collect();
        let rcode = match message.metadata.response_code.low() {
            0 => "NOERROR".to_owned(),
            2 => "SERVFAIL".to_owned(),
            3 => "NXDOMAIN".to_owned(),
            6 => "YXDOMAIN".to_owned(),
            other => other.to_string(),
        };
        let sections = [lines(&message.answers), lines(&message.authorities), lines(&message.additionals)];
        Self { rcode, authoritative: message.metadata.authoritative, sections }.sorted()
    }

    /// Whether minimal responses leave the last two sections out.
    fn is_bare_answer(&self) -> bool {
        let [answer, authority, additional] = &self.sections;
        !answer.is_empty() && authority.is_empty() && additional.is_empty()
    }

    /// The same response without what minimal ones leave out.
    fn minimal(&self) -> Self {
        let answer = self.sections[0].clone();
        Self {
            rcode: self.rcode.clone(),
            authoritative: self.authoritative,
            sections: [answer, Vec::new(), Vec::new()],
        }
    }

    fn sorted(mut self) -> Self {
        for section in &mut self.sections {
            section.sort();
        }
        self
    }
}

/// Case and quotes don't count.
fn plain(line: &str) -> String {
    line.replace('"', "").to_lowercase()
}

fn shown(record: &Record) -> String {
    let data = match &record.data {
        RData::Unknown { code, rdata } if u16::from(*code) == DNAME => {
            format!("DNAME {}", NameRef::from_wire(&rdata.anything).expect("a name"))
        }
        data => format!("{} {data}", record.record_type()),
    };
    plain(&format!("{} {} IN {data}", record.name, record.ttl))
}

/// Loads the zone, asks the question.
fn ask(case: &Value, responses: Responses) -> Result<Compared, String> {
    let text = case["zone"].as_str().expect("a zone");
    let soa = text.lines().find(|line| line.split_whitespace().nth(3) == Some("SOA")).expect("a SOA");
    let origin = soa.split_whitespace().next().and_then(|name| name.parse().ok()).expect("an origin");
    let message = |errors: Vec<_>| format!("the zone doesn't load: {errors:?}");
    let records = file::parse(text.as_bytes(), "zone", &origin, &mut |_| Err("no files".into())).map_err(message)?;
    let zones =
        Zones::new([Arc::new(ServedZone::unsigned(Zone::compile(&origin, &records, &[]).map_err(message)?.zone))]);
    let packet = question(case["qname"].as_str().expect("a name"), case["qtype"].as_str().expect("a type")).plain();
    let settings = Settings { responses, ..Settings::anonymous() };
    let context = Context { settings: &settings, limiter: None, now: 0 };
    let mut out = Vec::new();
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match respond(&context, &zones, &NoSteering, &packet.to_wire(), from, Transport::Tcp, &mut out) {
        Outcome::Dropped => Err("the query was dropped".to_owned()),
        Outcome::Answered { .. } => Ok(Compared::ours(&Message::from_vec(&out).map_err(|error| error.to_string())?)),
    }
}

#[test]
fn ferret_cases_are_answered_as_bind_nsd_knot_or_powerdns_do() {
    compare(Responses::Full);
}

#[test]
fn minimal_responses_to_ferret_cases_lack_nothing_but_the_company_of_answers() {
    compare(Responses::Minimal);
}

fn compare(responses: Responses) {
    let file = root().join("tests/vectors/ferret/cases.jsonl");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (mut passed, mut failed) = (0, Vec::new());
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).expect("a case");
        let accepted = case["accepted"].as_array().expect("accepted responses").iter();
        let accepted: Vec<Compared> =
            accepted.map(|one| Compared::accepted(one["response"].as_array().expect("a response"))).collect();
        let is_accepted = |ours: &Compared| {
            let may_be_bare = responses == Responses::Minimal && ours.is_bare_answer();
            accepted.iter().any(|one| one == ours || (may_be_bare && one.minimal() == *ours))
        };
        match ask(&case, responses) {
            Ok(ours) if is_accepted(&ours) => passed += 1,
            ours => failed.push(format!(
                "case {} ({}): {} {}\n{}\nours {ours:#?}\naccepted {accepted:#?}",
                case["id"],
                case["tag"],
                case["qname"],
                case["qtype"],
                case["zone"].as_str().unwrap_or_default()
            )),
        }
    }
    println!("Ferret, {responses:?}: {passed} of {} cases", passed + failed.len());
    assert!(failed.is_empty(), "{} cases fail:\n{}", failed.len(), failed.join("\n\n"));
    assert_eq!(passed, CASES, "{} lacks some cases or has more", file.display());
}
