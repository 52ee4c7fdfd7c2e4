//! Tests of the timeline. They simulate random rollovers with random delays. They check that a validator always has a
//! chain of trust, whichever versions of DS, DNSKEY and data it has cached from whichever servers.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::dnssec::key::SigningKey;
use crate::dnssec::key_set::ZoneKeys;
use crate::dnssec::policy::Cds;

const START: Timestamp = Timestamp(1_800_000_000_000);

/// The keys of a test: one to begin with, and one for each rollover.
static KEYS: LazyLock<Vec<Arc<SigningKey>>> =
    LazyLock::new(|| (0..5).map(|_| Arc::new(SigningKey::generate(Algorithm::Ed25519).unwrap())).collect());

fn zone() -> Name {
    "ai.example.com".parse().unwrap()
}

fn new_key(number: usize) -> NewKey {
    NewKey { file: format!("{number}.pem"), tag: KEYS[number].tag(), algorithm: Algorithm::Ed25519 }
}

fn keys_of(state: &State, policy: Policy) -> ZoneKeys {
    ZoneKeys::new(state, policy, |key| {
        let number = key.file.strip_suffix(".pem")?.parse::<usize>().ok()?;
        KEYS.get(number).cloned()
    })
}

fn spans(policy: &Policy) -> (Millis, Millis, Millis) {
    (policy.propagation, policy.dnskey_ttl, policy.ds_ttl)
}

/// One version of the data that a server served: from when it was served, and until when caches may hold it.
#[derive(Debug, Clone)]
struct Served<T> {
    what: T,
    from: Timestamp,
    cached_until: Timestamp,
}

/// Takes the versions that one server served, in order, each with its first instant. Returns them with the time until
/// which caches may hold them.
fn served<T: Clone + PartialEq>(versions: &[(Timestamp, T)], ttl: impl Fn(&T) -> Millis) -> Vec<Served<T>> {
    let ends = versions.iter().skip(1).map(|(from, _)| *from).chain([Timestamp(i64::MAX)]);
    let windows = versions.iter().zip(ends).map(|((from, what), end)| Served {
        what: what.clone(),
        from: *from,
        cached_until: end.after(ttl(what)),
    });
    windows.collect()
}

/// A set of keys: the keys in a DNSKEY RRset, the keys that signed data, or the keys that a DS RRset names. Empty if
/// there is no such RRset, or if the data isn't signed.
type Keyset = BTreeSet<Vec<u8>>;

/// The states that reached the nodes, and the DS RRsets that reached the parent zone's servers.
#[derive(Debug, Default)]
struct History {
    /// By node, when each state reached it.
    nodes: Vec<Vec<(Timestamp, State)>>,
    /// By server of the parent, when each DS RRset reached it.
    parents: Vec<Vec<(Timestamp, Keyset)>>,
}

impl History {
    /// A combination of DS, DNSKEY and data that a validator may have cached and that gives no chain of trust; `None`
    /// if there is no such combination.
    fn broken(&self, policy: &Policy, max_ttl: Millis) -> Option<String> {
        let mut dnskeys = Vec::new();
        let mut signers = Vec::new();
        for states in &self.nodes {
            let key_sets = key_sets(states, *policy);
            let keysets: Vec<(Timestamp, Keyset)> =
                key_sets.iter().map(|(from, keys, _)| (*from, keys.clone())).collect();
            let signing: Vec<(Timestamp, Keyset)> =
                key_sets.iter().map(|(from, _, signs)| (*from, signs.clone())).collect();
            // The answer that there is no DNSKEY is cached like any negative answer.
            dnskeys.extend(served(&keysets, |keys| if keys.is_empty() { max_ttl } else { policy.dnskey_ttl }));
            signers.extend(served(&signing, |_| max_ttl.max(policy.dnskey_ttl)));
        }
        let ds: Vec<_> = self.parents.iter().flat_map(|versions| served(versions, |_| policy.ds_ttl)).collect();
        for ds in &ds {
            for keys in &dnskeys {
                for data in &signers {
                    // Three windows have an instant in common if the latest start is before the first end.
                    let from = ds.from.max(keys.from).max(data.from);
                    let until = ds.cached_until.min(keys.cached_until).min(data.cached_until);
                    let anchored = ds.what.iter().any(|key| keys.what.contains(key));
                    let verified = data.what.iter().any(|key| keys.what.contains(key));
                    if from < until && !ds.what.is_empty() && !(anchored && verified) {
                        return Some(format!("from {from} to {until}: DS {ds:?}, DNSKEY {keys:?}, data {data:?}"));
                    }
                }
            }
        }
        None
    }
}

/// The keys that a node served: an entry for each change, whether by a new state or by time.
fn key_sets(states: &[(Timestamp, State)], policy: Policy) -> Vec<(Timestamp, Keyset, Keyset)> {
    let mut key_sets = vec![(Timestamp(0), Keyset::new(), Keyset::new())];
    for (number, (reached, state)) in states.iter().enumerate() {
        let keys = keys_of(state, policy);
        let end = states.get(number + 1).map_or(Timestamp(i64::MAX), |(next, _)| *next);
        let mut at = Some(*reached);
        while let Some(now) = at.filter(|&now| now < end) {
            let key_set = keys.key_set(now);
            let set = |key: &SigningKey| key.dnskey().to_vec();
            key_sets.push((now, key_set.dnskey_signers().map(set).collect(), key_set.signers().map(set).collect()));
            assert_eq!(key_set.dnskeys().count(), key_set.dnskey_signers().count());
            at = key_set.next_change(now);
        }
    }
    key_sets
}

/// The behaviour of the operator and the network. The operator takes each step when it is allowed, or some time later.
#[derive(Debug, Clone)]
struct Scenario {
    policy: Policy,
    max_ttl: Millis,
    /// For each rollover: the operator's delays, the lags of nodes and of the parent's servers in thousandths of the
    /// propagation time, and whether the parent has both DS for a while.
    rolls: Vec<Roll>,
}

#[derive(Debug, Clone)]
struct Roll {
    begun_after: u64,
    ds_after: u64,
    seen_after: u64,
    lags: [u64; 8],
    both: Option<u64>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let span = || prop_oneof![Just(0_u64), 1..10_u64, 1..200_000_u64];
    let delay = || prop_oneof![Just(0_u64), 1..300_000_u64];
    let roll = (delay(), delay(), delay(), prop::array::uniform8(0..=1000_u64), prop::option::of(delay()));
    let roll = roll.prop_map(|(begun_after, ds_after, seen_after, lags, both)| Roll {
        begun_after: begun_after * 1000,
        ds_after: ds_after * 1000,
        seen_after: seen_after * 1000,
        lags,
        both: both.map(|both| both * 1000),
    });
    (span(), 1..100_000_u64, span(), span(), prop::collection::vec(roll, 1..4)).prop_map(
        |(propagation, dnskey, ds, max, rolls)| {
            let seconds = |seconds: u64| Millis(seconds * 1000);
            let policy = Policy {
                cds: Cds::Publish,
                dnskey_ttl: seconds(dnskey),
                ds_ttl: seconds(ds),
                propagation: seconds(propagation),
            };
            Scenario { policy, max_ttl: seconds(max), rolls }
        },
    )
}

impl Scenario {
    fn lag(&self, part: u64) -> Millis {
        Millis(self.policy.propagation.0 * part / 1000)
    }

    /// Simulates all rollovers. Checks that a step is refused a millisecond before it is allowed.
    fn play(&self) -> History {
        let Self { policy, max_ttl, rolls } = self;
        let mut state = first(zone(), new_key(0), policy, *max_ttl, START);
        let ready = state.keys[0].ready;
        let ds_of = |numbers: &[usize]| -> Keyset { numbers.iter().map(|&one| KEYS[one].dnskey().to_vec()).collect() };
        let lags = rolls[0].lags;
        let mut history = History {
            nodes: (0..2).map(|node| vec![(START.after(self.lag(lags[node])), state.clone())]).collect(),
            parents: (0..2).map(|_| vec![(Timestamp(0), Keyset::new())]).collect(),
        };
        let put = |history: &mut History, at: Timestamp, set: Keyset, lags: [u64; 2]| {
            for (server, lag) in history.parents.iter_mut().zip(lags) {
                server.push((at.after(self.lag(lag)), set.clone()));
            }
            at.after(self.lag(lags[0].max(lags[1])))
        };
        let mut now = put(&mut history, ready, ds_of(&[0]), [lags[2], lags[3]]);
        for (number, roll) in (1..).zip(rolls) {
            let allowed = now.max(match begin(&state, new_key(number), policy, START) {
                Err(StepError::TooEarly { until, .. }) => until,
                other => panic!("{other:?}"),
            });
            now = allowed.after(Millis(roll.begun_after));
            state = begin(&state, new_key(number), policy, now).unwrap();
            for (node, lag) in history.nodes.iter_mut().zip(roll.lags) {
                node.push((now.after(self.lag(lag)), state.clone()));
            }
            let ready = state.successor().unwrap().ready;
            let early = finish(&state, policy, *max_ttl, Timestamp(ready.0 - 1));
            assert!(matches!(early, Err(StepError::TooEarly { until, .. }) if until == ready), "{early:?}");
            assert!(matches!(begin(&state, new_key(number), policy, ready), Err(StepError::UnderWay { .. })));

            let at = ready.after(Millis(roll.ds_after));
            let lags = [roll.lags[4], roll.lags[5]];
            now = match roll.both {
                Some(both) => {
                    let there = put(&mut history, at, ds_of(&[number - 1, number]), lags);
                    put(&mut history, there.after(Millis(both)), ds_of(&[number]), lags)
                }
                None => put(&mut history, at, ds_of(&[number]), lags),
            };
            now = now.after(Millis(roll.seen_after));
            state = finish(&state, policy, *max_ttl, now).unwrap();
            for (node, lag) in history.nodes.iter_mut().zip(&roll.lags[6..]) {
                node.push((now.after(self.lag(*lag)), state.clone()));
            }
        }
        history
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn from_generation_to_retirement_every_validator_has_a_chain(scenario in scenario()) {
        let history = scenario.play();
        prop_assert_eq!(history.broken(&scenario.policy, scenario.max_ttl), None);
        // At the end one key is left, and nothing changes any more.
        let (_, last) = history.nodes[0].last().unwrap();
        let key_set = keys_of(last, scenario.policy).key_set(Timestamp(i64::MAX));
        prop_assert_eq!(key_set.dnskeys().count(), 1);
        prop_assert_eq!(key_set.next_change(Timestamp(i64::MAX)), None);
    }
}

/// The tightest scenario: nodes and parents follow at the last allowed moment, and the operator takes each step as
/// early as possible.
fn tightest() -> Scenario {
    let policy = Policy {
        cds: Cds::Off,
        dnskey_ttl: Millis(3_600_000),
        ds_ttl: Millis(7_200_000),
        propagation: Millis(600_000),
    };
    let lags = [0, 1000, 0, 1000, 0, 1000, 0, 1000];
    let roll = Roll { begun_after: 0, ds_after: 0, seen_after: 0, lags, both: None };
    Scenario { policy, max_ttl: Millis(7_200_000), rolls: vec![roll] }
}

#[test]
fn the_check_notices_every_wait_that_is_a_millisecond_too_short() {
    let scenario = tightest();
    let (policy, max_ttl) = (scenario.policy, scenario.max_ttl);
    assert_eq!(scenario.play().broken(&policy, max_ttl), None);

    // The old key is removed too early: data that it signed is still cached.
    let mut history = scenario.play();
    let mut short = |by: i64| {
        for (_, state) in history.nodes.iter_mut().flatten() {
            if let Stage::Retired { remove, .. } = &mut state.keys[0].stage {
                remove.0 -= by;
            }
        }
        history.broken(&policy, max_ttl)
    };
    assert!(short(1).is_some_and(|found| found.contains("data")));

    // The new DS is published too early: a DNSKEY RRset without the new key is still cached.
    let mut history = scenario.play();
    for server in &mut history.parents {
        server.last_mut().unwrap().0.0 -= 1;
    }
    assert!(history.broken(&policy, max_ttl).is_some());

    // The first DS is published too early: data without signatures is still cached.
    let mut history = scenario.play();
    for server in &mut history.parents {
        server[1].0.0 -= 1;
    }
    assert!(history.broken(&policy, max_ttl).is_some());
}

#[test]
fn cds_names_a_key_once_it_is_ready() {
    let scenario = tightest();
    let policy = Policy { cds: Cds::Publish, ..scenario.policy };
    let cds_tags = |state: &State, now: Timestamp| match keys_of(state, policy).key_set(now).cds() {
        crate::dnssec::key_set::CdsPolicy::Publish(keys) => keys.iter().map(|key| key.tag()).collect(),
        _ => Vec::new(),
    };
    let state = first(zone(), new_key(0), &policy, scenario.max_ttl, START);
    let ready = state.keys[0].ready;
    assert_eq!((cds_tags(&state, Timestamp(ready.0 - 1)), cds_tags(&state, ready)), (vec![], vec![KEYS[0].tag()]));
    let state = begin(&state, new_key(1), &policy, ready).unwrap();
    let ready = state.keys[1].ready;
    assert_eq!(cds_tags(&state, Timestamp(ready.0 - 1)), [KEYS[0].tag()]);
    assert_eq!(cds_tags(&state, ready), [KEYS[1].tag()]);
    let state = finish(&state, &policy, scenario.max_ttl, ready).unwrap();
    assert_eq!(cds_tags(&state, ready), [KEYS[1].tag()]);
    let delete = Policy { cds: Cds::Delete, ..policy };
    assert!(matches!(keys_of(&state, delete).key_set(ready).cds(), crate::dnssec::key_set::CdsPolicy::Delete));
}

#[test]
fn digests_depend_on_keys_stages_and_times_but_not_on_file_names() {
    let policy = Policy::default();
    let digest = |state: &State| keys_of(state, policy).key_set(START).digest().to_owned();
    let state = first(zone(), new_key(0), &policy, Millis(0), START);
    assert_eq!(digest(&state), digest(&state.clone()));
    let mut other = state.clone();
    other.zone = "AI.example.COM".parse().unwrap();
    assert_eq!(digest(&state), digest(&other), "case doesn't count");
    let mut other = state.clone();
    other.keys[0].ready.0 += 1;
    assert_ne!(digest(&state), digest(&other));
    let begun = begin(&state, new_key(1), &policy, state.keys[0].ready).unwrap();
    assert_ne!(digest(&state), digest(&begun));
    let (mut one, mut two) = (state.clone(), state);
    one.keys[0].file = "1.pem".to_owned();
    two.keys[0].file = "2.pem".to_owned();
    assert_ne!(digest(&one), digest(&two), "other keys have another digest");
}

#[test]
fn steps_out_of_turn_are_refused() {
    let policy = Policy::default();
    let (propagation, dnskey, _) = spans(&policy);
    let state = first(zone(), new_key(0), &policy, Millis(0), START);
    assert_eq!(state.keys[0].ready, START.after(propagation).after(dnskey));
    assert_eq!(finish(&state, &policy, Millis(0), START), Err(StepError::NotBegun));
    let other = NewKey { algorithm: Algorithm::EcdsaP256Sha256, ..new_key(1) };
    let refused = begin(&state, other, &policy, state.keys[0].ready);
    assert!(matches!(refused, Err(StepError::OtherAlgorithm { .. })), "{refused:?}");
    let reported = begin(&state, new_key(1), &policy, START).unwrap_err().to_string();
    assert!(reported.ends_with("; try again at 2027-01-15T10:00:00Z or later"), "{reported}");
}
