//! What must hold for any bytes from outside: fuzz targets and the ordinary test of their inputs (`tests/corpus.rs`)
//! call these. Each panics when its rule is broken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path};
use std::sync::{Arc, OnceLock};

use bailiwick_dns::dnssec::key::{Algorithm, SigningKey};
use bailiwick_dns::dnssec::key_set::ZoneKeys;
use bailiwick_dns::dnssec::policy::Policy;
use bailiwick_dns::dnssec::state::State;
use bailiwick_dns::dnssec::timeline::{self, NewKey};
use bailiwick_dns::protocol::rdata::RdataSet;
use bailiwick_dns::response::answer::{Asking, SteeredAnswer, SteeredAnswers};
use bailiwick_dns::response::wire::{self, Context, Outcome, Settings, Transport};
use bailiwick_dns::zone::{ServiceIndex, SteeredOwner, Zone, file};
use bailiwick_dns::zones::{ServedZone, Zones};
use bailiwick_rules::bundle;
use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::load::{EnginePage, EngineReading};
use bailiwick_rules::probe::{Answer, RefusalMeaning, TokenLimit, TokenProof, refused};
use bailiwick_rules::quota::{Cost, LONGEST_WAIT, Limit, Limits, Pool, Reading};
use bailiwick_rules::replica;
use bailiwick_rules::rules::MetricsOf;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::steer::{Ask, Client, Conditions, Local, PathClass, steer};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

const ZONE: &[u8] = b"$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n@ MX 10 mail\nns A 192.0.2.53\nmail AAAA 2001:db8::25\n\
    www A 192.0.2.1\nwww A 192.0.2.2\nalias CNAME www\nloop CNAME loop2\nloop2 CNAME loop\naway CNAME elsewhere.example.\n*.wild TXT one two\n\
    old DNAME www\ndeep.empty A 192.0.2.3\nsub NS ns.sub\nsub DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000\n\
    ns.sub A 192.0.2.54\n_s._tcp SRV 1 2 443 www\n@ CAA 0 issue \"ca.example\"\nweb HTTPS 1 . alpn=h2\nnew TYPE65280 \\# 3 010203\n";

/// Zones with every shape of answer, and a steered name.
struct Served {
    zones: Zones,
    address: RdataSet,
    settings: Settings,
}

impl SteeredAnswers for Served {
    fn resolve(&self, _: ServiceIndex, rtype: u16, client: &Asking) -> SteeredAnswer<'_> {
        let scope = client.ecs.map_or(0, |ecs| ecs.source.min(20));
        match rtype {
            1 => SteeredAnswer::Records { ttl: 30, rdatas: self.address.as_ref(), scope, region: None },
            _ => SteeredAnswer::Nothing { scope, ede: 18 },
        }
    }
}

fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let origin = "example.com".parse().expect("a name");
        let records = file::parse(ZONE, "z", &origin, &mut |_| Err(String::new())).expect("a sound zone");
        let name = "chat.example.com".parse().expect("a name");
        let steered = [SteeredOwner { name, service: ServiceIndex(0), types: vec![1] }];
        let zone = Zone::compile(&origin, &records, &steered).expect("a sound zone").zone;
        Served {
            zones: Zones::new([Arc::new(ServedZone::unsigned(zone))]),
            address: RdataSet::new(1, [&[192, 0, 2, 77][..]]),
            settings: Settings::anonymous(),
        }
    })
}

fn context() -> Context<'static> {
    Context { settings: &served().settings, limiter: None, now: 1_800_000_000 }
}

fn respond(packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome {
    let served = served();
    wire::respond(&context(), &served.zones, served, packet, from, transport, out)
}

/// Any packet gets a sound response within its bounds, or none.
///
/// # Panics
/// When it doesn't.
pub(crate) fn packet(bytes: &[u8]) {
    let mut out = Vec::new();
    let from = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535), (Transport::Tls, 65_535)] {
        let outcome = respond(bytes, from, transport, &mut out);
        if outcome == Outcome::Dropped {
            assert!(out.is_empty(), "a dropped packet gets no response");
            assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0, "only stubs and responses are dropped");
            continue;
        }
        assert!((12..=limit).contains(&out.len()), "{} octets by {transport:?}", out.len());
        assert_eq!(out[..2], bytes[..2], "the id");
        assert_eq!(out[2] & 0xf9, bytes[2] & 0x79 | 0x80, "QR, the opcode and RD; AA and TC apart");
        assert_eq!(out[3] & 0x80, 0, "no recursion is offered");
        sound(&out);
        if transport == Transport::Udp {
            let mut again = Vec::new();
            respond(bytes, from, transport, &mut again);
            assert_eq!(out, again, "equal packets get equal responses");
        }
    }
}

/// Walks a response to its last octet by the counts in its header.
fn sound(message: &[u8]) {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let skip_name = |mut at: usize| {
        loop {
            match message[at] {
                0 => return at + 1,
                length @ 1..=63 => at += 1 + usize::from(length),
                pointer @ 192.. => {
                    let target = usize::from(pointer & 0x3f) << 8 | usize::from(message[at + 1]);
                    assert!(target < at, "a pointer points back");
                    return at + 2;
                }
                other => panic!("a label of kind {other:#x}"),
            }
        }
    };
    let mut at = 12;
    for _ in 0..u16_at(4) {
        at = skip_name(at) + 4;
    }
    for _ in 0..u16_at(6) + u16_at(8) + u16_at(10) {
        at = skip_name(at) + 10;
        at += u16_at(at - 2);
    }
    assert_eq!(at, message.len(), "the sections end where the message ends");
}

/// A client subnet of any octets is echoed with a scope, or refused as RFC 7871 §7.1.2 commands.
///
/// # Panics
/// When it isn't.
pub(crate) fn ecs(bytes: &[u8]) {
    let Some((&choice, option)) = bytes.split_first() else { return };
    let names: [&[u8]; 4] = [b"\x04chat", b"\x03www", b"\x04none", b"\x04host\x03sub"];
    let Ok(length) = u16::try_from(option.len()) else { return };
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(names[usize::from(choice & 3)]);
    packet.extend_from_slice(b"\x07example\x03com\x00\x00\x01\x00\x01");
    let asked = packet.len();
    packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0]);
    packet.extend_from_slice(&(length.saturating_add(4)).to_be_bytes());
    packet.extend_from_slice(&[0, 8]);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(option);
    if length > u16::MAX - 4 {
        return;
    }
    let mut out = Vec::new();
    let outcome = respond(&packet, IpAddr::V6(Ipv6Addr::LOCALHOST), Transport::Udp, &mut out);
    assert_ne!(outcome, Outcome::Dropped);
    sound(&out);
    if !is_sound_subnet(option) {
        assert_eq!(out[3] & 15, 1, "FORMERR for {option:02x?}");
        return;
    }
    assert_ne!(out[3] & 15, 1, "{option:02x?} is sound");
    let tail = &out[asked..];
    // Family, source and address as they came; between them the scope.
    let echo = tail
        .windows(option.len() + 4)
        .find(|window| window[..2] == [0, 8] && window[2..4] == length.to_be_bytes() && window[4..7] == option[..3]);
    let echo = echo.unwrap_or_else(|| panic!("{option:02x?} is not echoed in {tail:02x?}"));
    assert_eq!(echo[8..], option[4..], "the address");
    let most = if option[1] == 1 { 32 } else { 128 };
    assert!(echo[7] <= most, "scope {}", echo[7]);
    if choice & 3 != 0 {
        assert_eq!(echo[7], 0, "an answer that isn't steered is the same for all clients");
    }
}

/// RFC 7871 §6 and §7.1.2, written apart from the server's reader.
fn is_sound_subnet(option: &[u8]) -> bool {
    let [0, family @ 1..=2, source, 0, address @ ..] = option else { return false };
    let width = if *family == 1 { 32 } else { 128 };
    let bits = address.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1));
    *source <= width
        && address.len() == usize::from(*source).div_ceil(8)
        && bits.skip(usize::from(*source)).all(|bit| bit == 0)
}

/// Any zone file is read or refused, and what was read compiles to a zone or to errors.
///
/// # Panics
/// When reading or compiling does, or when an error has no place.
pub(crate) fn zone_file(bytes: &[u8]) {
    let origin = "example.com".parse().expect("a name");
    let include = &mut |path: &std::path::Path| match path.to_str() {
        Some("more") => Ok(b"more 60 A 192.0.2.9\n$INCLUDE more\n".to_vec()),
        _ => Err("no such file".to_owned()),
    };
    match file::parse(bytes, "z", &origin, include) {
        Ok(records) => match Zone::compile(&origin, &records, &[]) {
            Ok(compiled) => {
                // What the zone holds can be asked for.
                let zones = Zones::new([Arc::new(ServedZone::unsigned(compiled.zone))]);
                let mut out = Vec::new();
                for label in [&b""[..], b"\x03www", b"\x01a\x01b"] {
                    let mut packet = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                    packet.extend_from_slice(label);
                    packet.extend_from_slice(b"\x07example\x03com\x00\x00\xff\x00\x01");
                    wire::respond(
                        &context(),
                        &zones,
                        served(),
                        &packet,
                        IpAddr::V4(Ipv4Addr::LOCALHOST),
                        Transport::Tcp,
                        &mut out,
                    );
                    sound(&out);
                }
            }
            Err(errors) => assert!(!errors.is_empty(), "refused without a word"),
        },
        Err(errors) => assert!(!errors.is_empty(), "refused without a word"),
    }
}

/// Any document compiles or is refused with places, and what compiles steers nobody out of the fence.
///
/// # Panics
/// When it doesn't.
pub(crate) fn rules(bytes: &[u8]) {
    let table = match Table::compile(bytes) {
        Ok(table) => table,
        Err(violations) => {
            assert!(!violations.is_empty(), "refused without a word");
            return;
        }
    };
    let now = Timestamp(1_800_000_000_000);
    let (local, health) = (Local::default(), Vec::<RegionHealth>::new());
    let conditions = Conditions { health: &health, local: &local, now };
    let _ = table.warnings(now);
    let addresses = [Some(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7))), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), None];
    for service in table.services() {
        let Some(service) = table.service_named(service.id.as_str()) else { panic!("a service without a name") };
        for address in addresses {
            let client = Client { address, ..Client::default() };
            let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
            let steering = steer(&table, &ask, &conditions);
            let mut seen: Vec<_> = steering.fence().map(|one| one.fenced.region).collect();
            assert!(seen.iter().all(|region| table.service(service).regions.contains(region)), "a foreign region");
            let all = seen.len();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), all, "a region is offered or withheld, once");
            assert_eq!(steering, steer(&table, &ask, &conditions), "equal asks, equal steerings");
        }
    }
}

/// Any state file of keys is read or refused with a place and words; what is read is written as it was, and any step
/// may be tried at any time.
///
/// # Panics
/// When it isn't.
pub(crate) fn key_state(bytes: &[u8]) {
    static KEY: OnceLock<Arc<SigningKey>> = OnceLock::new();
    let state = match State::parse(bytes) {
        Ok(state) => state,
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a word");
            assert!(errors.iter().all(|error| !error.pointer.is_empty() && !error.message.is_empty()), "{errors:?}");
            return;
        }
    };
    assert_eq!(State::parse(state.to_json().as_bytes()).as_ref(), Ok(&state), "written and read again");
    assert!(state.active().is_some(), "one key signs");
    let key = KEY.get_or_init(|| Arc::new(SigningKey::generate(Algorithm::Ed25519).expect("randomness")));
    let (policy, day) = (Policy::default(), Millis(86_400_000));
    let keys = ZoneKeys::new(&state, policy, |_| Some(Arc::clone(key)));
    let reported = state.keys.iter().flat_map(|key| [key.published, key.ready]);
    for now in [Timestamp(i64::MIN), Timestamp(0), Timestamp(1_800_000_000_000), Timestamp(i64::MAX)]
        .into_iter()
        .chain(reported)
    {
        let key_set = keys.key_set(now);
        assert_eq!(key_set.signers().count(), 1, "one key signs at any time");
        assert!(key_set.next_change(now).is_none_or(|next| next > now), "the next change is in the future");
        let _ = (key_set.cds(), key_set.digest());
        let new = NewKey { file: "new.pem".to_owned(), tag: 4711, algorithm: state.keys[0].algorithm };
        for step in [timeline::begin(&state, new, &policy, now), timeline::finish(&state, &policy, day, now)] {
            match step {
                Ok(next) => assert!(next.active().is_some(), "one key signs after each step"),
                Err(error) => assert!(!error.to_string().is_empty(), "refused without a word"),
            }
        }
    }
}

/// Any private key's file is read or refused with words; what is read signs, and is written so that it is read again.
///
/// # Panics
/// When it isn't.
pub(crate) fn key_pem(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match SigningKey::from_pem(text) {
        Err(error) => assert!(!error.to_string().is_empty(), "refused without a word"),
        Ok(key) => {
            assert_eq!(key.sign(b"data").map(|signature| signature.len()), Ok(64));
            let again = SigningKey::from_pem(&key.to_pem()).expect("what it wrote itself");
            assert_eq!((again.tag(), again.dnskey()), (key.tag(), key.dnskey()));
        }
    }
}

/// Whatever a provider's headers say, they are read or left out, and close a pool for an hour at most.
///
/// # Panics
/// When they don't.
pub(crate) fn quota_headers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let headers: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let get = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim());
    let now = Timestamp(1_800_000_000_000);
    let reading = Reading::of(get, now);
    assert!(reading.wait().is_none_or(|wait| wait <= LONGEST_WAIT), "{reading:?}");
    let limit =
        Limit { amount: 600, per: Millis(60_000), burst: Millis(1_000), headroom: Ratio(50_000), lag: Millis(2_000) };
    let limits = Limits::new(Some(limit), Some(limit), vec![Ratio(300_000)]);
    let one = Cost { requests: 1, tokens: 1 };
    let (mut pool, before) = (Pool::default(), Pool::default().left(&limits, now));
    pool.note_served(&limits, &reading, now);
    assert!(pool.left(&limits, now) <= before, "a reported number never raises the limit");
    pool.note_refused(&reading, now);
    assert!(pool.check(&limits, None, one, now).is_err(), "never a hot retry");
    assert!(pool.check(&limits, None, one, now.after(LONGEST_WAIT)).is_ok(), "a pool isn't closed for ever");
}

/// An answer to a probe is read alike however it is cut into pieces, and none without a whole event proves a token.
/// What is refused is asked for again at most twice.
///
/// # Panics
/// When that isn't so.
pub(crate) fn model_answer(bytes: &[u8]) {
    let read = |kind: &str, length: usize| {
        let mut answer = Answer::new(Some(kind), None)?;
        for piece in bytes.chunks(length) {
            if answer.push(piece)? == TokenProof::Token {
                return Ok(());
            }
        }
        answer.finish()
    };
    for kind in ["text/event-stream", "application/json"] {
        let whole = read(kind, bytes.len().max(1));
        assert_eq!(read(kind, 1), whole, "byte by byte");
        assert_eq!(read(kind, 7), whole, "in pieces");
        let has = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        match whole {
            // Names may be written with escapes, and prove as much.
            Ok(()) => assert!(has("choices") || has("usage") || has("\\u"), "a token out of nothing"),
            Err(why) => assert!(!why.to_string().is_empty(), "refused without a word"),
        }
    }
    let mut limit = TokenLimit::default();
    let mut raises = 0;
    while let RefusalMeaning::Raise(next) = refused(400, bytes, limit) {
        (limit, raises) = (next, raises + 1);
        assert!(raises <= 2, "asked again and again");
    }
}

/// A metrics page is read or refused, alike however it is cut into pieces, and its load is never below what it shows.
///
/// # Panics
/// When that isn't so.
pub(crate) fn metrics_page(bytes: &[u8]) {
    let read = |of: &MetricsOf, length: usize| {
        let mut page = EnginePage::new(of);
        bytes.chunks(length).try_for_each(|piece| page.push(piece))?;
        page.finish(bytes.first() == Some(&b'#'))
    };
    for of in [MetricsOf::Vllm, MetricsOf::Sglang, MetricsOf::Tgi, MetricsOf::TrtLlm, MetricsOf::Dynamo] {
        let whole = read(&of, bytes.len().max(1));
        assert_eq!(read(&of, 7), whole, "in pieces");
        let Ok(reading) = whole else { continue };
        let EngineReading { waiting, running, kv, engines, .. } = reading;
        assert!(engines >= 1 && reading.load(Some(1)) >= kv);
        let is_known = waiting.is_some() || running.is_some() || kv.is_some();
        assert_eq!(reading.load(Some(1)).is_some(), is_known, "a missing load doesn't count as idle");
    }
}

/// The answers about a copy of knowledge are read or refused with a word, and never say a lag of another unit. Two
/// answers stand with a zero byte between them.
///
/// # Panics
/// When that isn't so.
pub(crate) fn replica_answer(bytes: &[u8]) {
    static SOURCES: OnceLock<Table> = OnceLock::new();
    let table = SOURCES.get_or_init(|| {
        let copies = [
            r#""time": { "as": "timestamp", "read": "/applied_at", "now": "/now", "leader": "/leader", "version": "/v" }"#,
            r#""seconds": { "as": "seconds", "read": "/lag" }"#,
            r#""bytes": { "as": "bytes", "read": "/lag" }"#,
            r#""page": { "as": "prometheus", "series": { "name": "lag" } }"#,
            r#""qdrant": { "as": "qdrant", "collection": "docs" }"#,
            r#""patroni": { "as": "patroni", "member": "p2" }"#,
            r#""elastic": { "as": "elasticsearch-ccr", "index": "docs" }"#,
            r#""weaviate": { "as": "weaviate" }"#,
        ]
        .map(|copy| copy.replacen("{ \"as\"", "{ \"url\": \"https://kb.example\", \"as\"", 1));
        let by_time = ["time", "seconds", "page"].map(|name| format!(r#""{name}": {{ "max_lag": "60s" }}"#));
        let by_amount = ["bytes", "qdrant", "patroni", "elastic", "weaviate"];
        let by_amount = by_amount.map(|name| format!(r#""{name}": {{ "max_lag": 100 }}"#));
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "replicas": {{ {}, {} }},
                "regions": {{ "r": {{ "countries": ["DE"], "replicas": {{ {} }} }} }} }}"#,
            by_time.join(", "),
            by_amount.join(", "),
            copies.join(", ")
        );
        Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
    });
    let mut answers: Vec<&[u8]> = bytes.splitn(2, |byte| *byte == 0).collect();
    answers.resize(2, b"");
    for source in table.regions().iter().flat_map(|region| &region.replicas).filter_map(|copy| copy.source.as_deref()) {
        match replica::read(source, &answers, Timestamp(1_800_000_000_000)) {
            Ok(reading) => {
                let fits = |lag| source.reads.unit().is_some_and(|unit| unit.fits(lag));
                assert!(reading.lag.is_none_or(fits) && (reading.lag.is_some() || reading.is_leader));
                assert!(reading.version.is_none_or(|version| (1..=256).contains(&version.len())));
            }
            Err(failure) => assert!((1..400).contains(&failure.to_string().len()), "{failure}"),
        }
    }
}

/// A pack of a bundle is refused, or all that it has lies below its folder, has its digest, and makes the same pack.
///
/// # Panics
/// When that isn't so.
pub(crate) fn bundle_pack(bytes: &[u8]) {
    let Ok((manifest, contents)) = bundle::unpack(bytes) else { return };
    let files = manifest.files().iter().zip(contents);
    let files: BTreeMap<String, Vec<u8>> = files.map(|(file, content)| (file.path.clone(), content.to_vec())).collect();
    for path in files.keys() {
        let inner = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        assert!(inner && bundle::check_path(path).is_ok(), "{path:?} leaves its folder");
    }
    let (again, packed) = bundle::pack(&files).expect("what came out of a pack makes one");
    assert!(again.version() == manifest.version() && packed == bytes, "the same files make another pack");
}
