//! Random zone files, read by BIND's `named-compilezone`, by NSD's `nsd-checkzone` and by bailiwick: what BIND reads,
//! bailiwick reads with the same records; most of it NSD reads, too. `scripts/differential --zone-files` reads a
//! thousand and more; the ordinary run some dozens.
//!
//! What isn't read on purpose is listed in docs/zone-files.md and not generated here.

mod generate;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use bailiwick_dns::protocol::name::{Name, NameRef};
use bailiwick_dns::zone::file;
use bailiwick_rules::testing::Random;
use tempfile::TempDir;

use generate::{INCLUDED, ORIGIN, ZoneText};

/// Owner in lower case, type, TTL and data of a record.
type PlainRecord = (String, u16, u32, Vec<u8>);

#[test]
fn what_bind_and_nsd_read_is_read_alike() {
    compare(seed(), number("BAILIWICK_TEXTS", 60));
}

#[test]
#[ignore = "takes a minute; scripts/differential --zone-files runs it"]
fn a_thousand_texts_that_bind_and_nsd_read_are_read_alike() {
    compare(seed(), number("BAILIWICK_TEXTS", 1_000));
}

fn seed() -> u64 {
    number("BAILIWICK_SEED", 20_261_128) as u64
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn compare(seed: u64, texts: usize) {
    let (Some(bind), Some(nsd)) = (tool("named-compilezone"), tool("nsd-checkzone")) else {
        println!("skipped: named-compilezone or nsd-checkzone is not installed; run scripts/setup");
        return;
    };
    let mut random = Random::new(seed);
    let folder = TempDir::new().unwrap();
    let (mut both, mut neither, mut faults) = (0, 0, Vec::new());
    for number in 0..texts {
        let text = generate::zone(&mut random);
        std::fs::write(folder.path().join("zone"), &text.main).unwrap();
        std::fs::write(folder.path().join(INCLUDED), &text.included).unwrap();
        let (theirs, by_nsd) = (by_bind(&bind, folder.path()), by_nsd(&nsd, folder.path()));
        both += usize::from(theirs.is_ok() && by_nsd.is_ok());
        // NSD doesn't know every type that BIND knows.
        let Ok(theirs) = &theirs else {
            neither += usize::from(by_nsd.is_err());
            if std::env::var_os("BAILIWICK_SHOW_REFUSED").is_some() {
                println!("{number}: BIND {theirs:?}, NSD {by_nsd:?}\n{}", text.shown());
            }
            continue;
        };
        match by_us(&text) {
            Ok(ours) if ours == *theirs => {}
            Ok(ours) => {
                let (more, less): (Vec<_>, Vec<_>) =
                    (ours.difference(theirs).collect(), theirs.difference(&ours).collect());
                faults.push(format!("text {number}: only ours {more:?}, only BIND's {less:?}\n{}", text.shown()));
            }
            Err(error) => faults.push(format!("text {number}: {error}\n{}", text.shown())),
        }
    }
    println!(
        "zone files: seed {seed}, {texts} texts, {both} read by BIND and NSD, {neither} by neither, {} faults",
        faults.len()
    );
    let first: Vec<&String> = faults.iter().take(8).collect();
    assert!(faults.is_empty(), "{} faults, such as {first:#?}", faults.len());
    assert!(both * 2 > texts, "too few texts are read by both servers");
}

fn by_us(text: &ZoneText) -> Result<BTreeSet<PlainRecord>, String> {
    let origin: Name = ORIGIN.parse().unwrap();
    let open = &mut |path: &Path| match path.to_str() {
        Some(INCLUDED) => Ok(text.included.clone()),
        _ => Err("no such file".to_owned()),
    };
    let records = file::parse(&text.main, "zone", &origin, open);
    let records = records.map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?;
    let reported = records
        .iter()
        .map(|record| (record.owner.to_string().to_lowercase(), record.rtype, record.ttl, record.rdata.to_vec()));
    Ok(reported.collect())
}

fn by_nsd(nsd: &Path, folder: &Path) -> Result<(), String> {
    let mut command = Command::new(nsd);
    let output = command.current_dir(folder).args([ORIGIN, "zone"]).stdin(Stdio::null()).output().unwrap();
    let reported = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(reported.into_owned()) }
}

/// BIND's records in its raw format: a header, then RRsets of wire data.
fn by_bind(bind: &Path, folder: &Path) -> Result<BTreeSet<PlainRecord>, String> {
    let mut command = Command::new(bind);
    let checks =
        ["-i", "none", "-k", "ignore", "-m", "ignore", "-n", "ignore", "-M", "ignore", "-S", "ignore", "-T", "ignore"];
    let raw = ["-F", "raw=1", "-o", "raw", ORIGIN, "zone"];
    let output = command.current_dir(folder).args(checks).args(raw).stdin(Stdio::null()).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr));
    }
    let raw = std::fs::read(folder.join("raw")).unwrap();
    let mut reader = Raw { octets: &raw[24..] };
    let mut reported = BTreeSet::new();
    while !reader.octets.is_empty() {
        let [_, _, _, _] = reader.take::<4>();
        let (_class, rtype, _covers) = (reader.u16(), reader.u16(), reader.u16());
        let (ttl, count) = (u32::from_be_bytes(reader.take()), u32::from_be_bytes(reader.take()));
        let owner = NameRef::from_wire(reader.counted()).unwrap().to_string().to_lowercase();
        for _ in 0..count {
            reported.insert((owner.clone(), rtype, ttl, reader.counted().to_vec()));
        }
    }
    Ok(reported)
}

struct Raw<'r> {
    octets: &'r [u8],
}

impl<'r> Raw<'r> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.octets.split_first_chunk::<N>().unwrap();
        self.octets = rest;
        *taken
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn counted(&mut self) -> &'r [u8] {
        let length = usize::from(self.u16());
        let (taken, rest) = self.octets.split_at(length);
        self.octets = rest;
        taken
    }
}

/// Debian keeps some of them where ordinary users don't look.
fn tool(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
        .iter()
        .map(|place| Path::new(place).join(name))
        .find(|path| path.exists())
}
