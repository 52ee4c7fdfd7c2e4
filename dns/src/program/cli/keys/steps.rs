//! `bailiwick keys generate`, `roll` and `ds`: each command does one step of [`crate::dnssec::timeline`], or says from
//! when on the step is allowed.

use bailiwick_rules::time::Timestamp;

use super::ConfiguredZone;
use crate::dnssec::directory::{Locked, STATE, read_key, read_state};
use crate::dnssec::key::{Algorithm, DigestType, KeyError, SigningKey};
use crate::dnssec::state::{KeyState, Stage, State};
use crate::dnssec::timeline::{self, NewKey, StepError};
use crate::program::config::SignedZone;
use crate::program::report::Report;
use crate::state::load::Fault;

/// How many keys are generated at most, until one has a tag that no other key of the zone has.
const TRIES: usize = 100;

/// Makes the first key of a zone.
pub(super) fn generate(
    configured: &ConfiguredZone,
    algorithm: Algorithm,
    now: Timestamp,
) -> Result<Report, Vec<Fault>> {
    let ConfiguredZone { zone, args, .. } = configured;
    let longest = configured.longest_ttl()?;
    let locked = Locked::take(&zone.directory).map_err(as_list)?;
    if read_state(zone, &mut |_| ())?.is_some() {
        let message = format!("the zone has a key already; `bailiwick keys roll {args}` makes the next");
        return Err(vec![Fault::of_file(&zone.directory.join(STATE), message)]);
    }
    let (key, new) = make(zone, algorithm, &[])?;
    let (tag, file) = (new.tag, new.file.clone());
    let state = timeline::first(zone.origin.clone(), new, &zone.policy, longest, now);
    locked.add_key(&file, &key).and_then(|()| locked.put_state(&state)).map_err(as_list)?;
    let ready = state.keys[0].ready;
    let paths = [&file, STATE].map(|name| zone.directory.join(name).display().to_string());
    let width = paths.iter().map(String::len).max().unwrap_or(0);
    Ok(Report::fine(format!(
        "{origin} has its first key: {tag}, algorithm {number}\n  \
         {key:width$}  the private key\n  {state:width$}  its state\n\n\
         Next:\n  \
         1. Give the directory to every node and start it again within {propagation} (\"propagation\"); \
         \"keys_sha256\" of their /v1/health\n     \
         must then be equal. Later changes of the directory are taken up without a start.\n  \
         2. From {ready} on, when no resolver holds the zone unsigned, bring the DS to the parent:\n     bailiwick \
         keys ds {args}\n",
        origin = zone.origin,
        number = algorithm.number(),
        key = paths[0],
        state = paths[1],
        propagation = zone.policy.propagation,
    )))
}

/// Begins a key roll: makes the new key, which is published beside the old key.
pub(super) fn begin(configured: &ConfiguredZone, now: Timestamp) -> Result<Report, Vec<Fault>> {
    let ConfiguredZone { zone, args, .. } = configured;
    let (locked, state, old) = lock_and_read(configured)?;
    let (key, new) = make(zone, old.algorithm, &state.keys)?;
    let (tag, file) = (new.tag, new.file.clone());
    let next = timeline::begin(&state, new, &zone.policy, now).map_err(|error| refused(zone, &error))?;
    locked.add_key(&file, &key).and_then(|()| locked.put_state(&next)).map_err(as_list)?;
    let ready = next.successor().map_or(now, |key| key.ready);
    Ok(Report::fine(format!(
        "{origin} has a new key: {tag}, published beside {old}, which signs on\n  {path}\n\n\
         Next:\n  \
         1. Give the directory to every node within {propagation} (\"propagation\"); \"keys_sha256\" of their \
         /v1/health must then be equal.\n  \
         2. From {ready} on, bring the new DS to the parent in place of the old one:\n     bailiwick keys ds {args}\n  \
         3. When all of the parent's servers have it:\n     bailiwick keys roll {args} --ds-seen\n",
        origin = zone.origin,
        old = old.tag,
        path = zone.directory.join(&file).display(),
        propagation = zone.policy.propagation,
    )))
}

/// Finishes a key roll: the new key signs, and the old key is retired.
pub(super) fn finish(configured: &ConfiguredZone, now: Timestamp) -> Result<Report, Vec<Fault>> {
    let zone = &configured.zone;
    let longest = configured.longest_ttl()?;
    let (locked, state, old) = lock_and_read(configured)?;
    let next = timeline::finish(&state, &zone.policy, longest, now).map_err(|error| refused(zone, &error))?;
    // From now on this key alone signs, so its file has to be readable.
    let new = next.active().ok_or_else(|| none_active(zone))?;
    read_key(zone, new).map_err(as_list)?;
    locked.put_state(&next).map_err(as_list)?;
    let removed = next.keys.iter().find(|key| key.file == old.file).map(|key| key.stage);
    let Some(Stage::Retired { remove, .. }) = removed else { return Err(none_active(zone)) };
    Ok(Report::fine(format!(
        "{origin} is signed by key {new}; key {old} is retired and leaves by itself at {remove}\n\n\
         Next:\n  \
         1. Give the directory to every node within {propagation} (\"propagation\"); \"keys_sha256\" of their \
         /v1/health must then be equal.\n  \
         2. After {remove}, {path} may be deleted.\n",
        origin = zone.origin,
        new = new.tag,
        old = old.tag,
        propagation = zone.policy.propagation,
        path = zone.directory.join(&old.file).display(),
    )))
}

/// The DS record of the newest key, for the parent zone.
pub(super) fn ds(
    configured: &ConfiguredZone,
    digest: DigestType,
    early: bool,
    now: Timestamp,
) -> Result<Report, Vec<Fault>> {
    let zone = &configured.zone;
    let state = stated(configured)?;
    let Some(reported) = state.successor().or_else(|| state.active()) else { return Err(none_active(zone)) };
    if reported.ready > now && !early {
        let why = match reported.stage {
            Stage::Published => format!("resolvers may hold the zone's keys without key {}", reported.tag),
            Stage::Active { .. } | Stage::Retired { .. } => "resolvers may hold the zone unsigned".to_owned(),
        };
        let message = format!(
            "too early for the parent: {why}; bring the DS there from {} on, or print it now with --early",
            reported.ready
        );
        return Err(vec![Fault { place: zone.origin.to_string(), message }]);
    }
    let rdata = read_key(zone, reported).map_err(as_list)?.ds_by(zone.origin.as_ref(), digest);
    let hex: String = rdata[4..].iter().map(|byte| format!("{byte:02X}")).collect();
    let (tag, algorithm, number) = (reported.tag, rdata[2], rdata[3]);
    Ok(Report::fine(format!("{} IN DS {tag} {algorithm} {number} {hex}\n", zone.origin)))
}

/// Locks the key directory of a zone that has keys. Returns the lock, the state of the keys, and the key that signs.
fn lock_and_read(configured: &ConfiguredZone) -> Result<(Locked, State, KeyState), Vec<Fault>> {
    // The state is read first, so that no directory is made for a zone without keys.
    stated(configured)?;
    let locked = Locked::take(&configured.zone.directory).map_err(as_list)?;
    let state = stated(configured)?;
    let active = state.active().cloned().ok_or_else(|| none_active(&configured.zone))?;
    Ok((locked, state, active))
}

fn stated(configured: &ConfiguredZone) -> Result<State, Vec<Fault>> {
    let ConfiguredZone { zone, args, .. } = configured;
    read_state(zone, &mut |_| ())?.ok_or_else(|| {
        let message = format!("is missing; make the zone's first key with `bailiwick keys generate {args}`");
        vec![Fault::of_file(&zone.directory.join(STATE), message)]
    })
}

/// Makes a key whose tag no other key of the zone has. With equal tags, validators might try the wrong key first.
fn make(zone: &SignedZone, algorithm: Algorithm, others: &[KeyState]) -> Result<(SigningKey, NewKey), Vec<Fault>> {
    let failed = |error: KeyError| vec![Fault { place: zone.origin.to_string(), message: error.to_string() }];
    for _ in 0..TRIES {
        let key = SigningKey::generate(algorithm).map_err(failed)?;
        let (tag, file) = (key.tag(), format!("{}-{:05}.pem", algorithm.number(), key.tag()));
        // A file of this name may hold a key that the state no longer names. It must not be overwritten.
        if others.iter().all(|other| other.tag != tag) && !zone.directory.join(&file).exists() {
            return Ok((key, NewKey { file, tag, algorithm }));
        }
    }
    Err(failed(KeyError::NoRandomness))
}

fn refused(zone: &SignedZone, error: &StepError) -> Vec<Fault> {
    vec![Fault { place: zone.origin.to_string(), message: error.to_string() }]
}

/// The error for a state without an active key. A state that was read has one, so this shouldn't happen.
fn none_active(zone: &SignedZone) -> Vec<Fault> {
    vec![Fault::of_file(&zone.directory.join(STATE), "no key is active; restore the file")]
}

fn as_list(fault: Fault) -> Vec<Fault> {
    vec![fault]
}
