//! Tests of manifests, paths and packs: by hand, and of random files.

use std::cell::Cell;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::time::Timestamp;

/// How many random sets of files are packed.
const CASES: u32 = 2_000;

fn contents(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())).collect()
}

fn of_paths(paths: &[&str]) -> Result<Manifest, BundleError> {
    let file = |path: &&str| File { path: (*path).to_owned(), bytes: 1, sha256: Digest::of(b"x") };
    Manifest::new(paths.iter().map(file).collect())
}

#[test]
fn a_version_is_what_sha256sum_says_of_the_sorted_files() {
    let manifest = Manifest::of(&contents(&[("b.txt", b"b\n"), ("a/system.md", b"You are kind.\n")])).unwrap();
    // printf 'You are kind.\n' > a/system.md; printf 'b\n' > b.txt
    // find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum
    assert_eq!(manifest.version().to_string(), "a1d241b7c8f14bcf85efefbee1cff18c017d34cd6cd4d1b6ed372dc0b7c21330");
    assert_eq!(Version::parse(&manifest.version().to_string()), Some(manifest.version()));
    assert_eq!((manifest.bytes(), manifest.file("b.txt").map(|(_, from)| from)), (16, Some(14)));
    assert!(manifest.file("a").is_none());
}

#[test]
fn every_change_is_another_version() {
    let version = |files: &[(&str, &[u8])]| Manifest::of(&contents(files)).unwrap().version();
    let one = version(&[("a", b"1"), ("b", b"2")]);
    assert_eq!(one, version(&[("b", b"2"), ("a", b"1")]));
    for other in [&[("a", &b"1"[..]), ("b", b"3")][..], &[("a", b"1"), ("c", b"2")], &[("a", b"1")], &[("a", b"12")]] {
        assert_ne!(one, version(other), "{other:?}");
    }
}

#[test]
fn paths_that_leave_the_folder_or_are_odd_are_refused() {
    for good in ["a", "a/b.md", "Prompts/v1.2/system_prompt-en@2.md", "a+b=c,~d", &"x".repeat(200)] {
        assert!(check_path(good).is_ok(), "{good}");
    }
    let long = "x".repeat(201);
    for bad in [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../a",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        ".git/config",
        "a/.b",
        "a b",
        "a\\b",
        "c:\\x",
        "a\nb",
        "a\0",
        "é",
        "a%2e",
        "a?b",
        "a#b",
        "a:b",
        &long,
    ] {
        assert!(check_path(bad).is_err(), "{bad:?}");
        assert!(matches!(of_paths(&["fine", bad]), Err(BundleError::Path { .. })), "{bad:?}");
    }
}

#[test]
fn what_no_folder_can_hold_is_refused() {
    assert_eq!(of_paths(&[]), Err(BundleError::Empty));
    assert_eq!(of_paths(&["a", "b", "a"]), Err(BundleError::Twice("a".to_owned())));
    assert_eq!(of_paths(&["a/b", "a-c", "a"]), Err(BundleError::FileAndFolder("a".to_owned())));
    assert!(of_paths(&["a/b", "a-c", "ab"]).is_ok());
}

#[test]
fn a_bundle_has_at_most_64_mib_and_1000_files() {
    let many = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("f{n}")).collect();
        of_paths(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(many(MOST_FILES).is_ok());
    assert_eq!(many(MOST_FILES + 1), Err(BundleError::TooManyFiles(1_001)));
    let of_size = |bytes: &[u64]| {
        let file = |(n, bytes): (usize, &u64)| File { path: format!("f{n}"), bytes: *bytes, sha256: Digest::of(b"") };
        Manifest::new(bytes.iter().enumerate().map(file).collect())
    };
    assert!(of_size(&[MOST_BYTES]).is_ok());
    assert_eq!(of_size(&[MOST_BYTES, 1]), Err(BundleError::TooLarge(MOST_BYTES + 1)));
    assert_eq!(of_size(&[u64::MAX, u64::MAX]), Err(BundleError::TooLarge(u64::MAX)));
}

#[test]
fn a_pack_that_was_changed_or_cut_is_none() {
    let (manifest, bytes) = pack(&contents(&[("a", b"one"), ("b/c", b""), ("d", b"\n\ntwo")])).unwrap();
    let (read, found) = unpack(&bytes).unwrap();
    assert_eq!((&read, found), (&manifest, vec![&b"one"[..], b"", b"\n\ntwo"]));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let read = unpack(&changed);
        assert!(read.as_ref().is_err() || read.is_ok_and(|(read, _)| read != manifest), "byte {at} was changed");
        assert!(unpack(&bytes[..at]).is_err(), "cut at {at}");
    }
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert_eq!(unpack(&longer).unwrap_err().to_string(), "it is no pack of a bundle: there is more than its contents");
}

#[test]
fn a_manifest_has_one_header_only() {
    let (manifest, bytes) = pack(&contents(&[("a", b"1"), ("b", b"2")])).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let swapped = format!("{}\n{}\n{}\n\n12", lines[0], lines[2], lines[1]);
    let padded = text.replacen(" 1 a", " 01 a", 1);
    let returns = text.replacen(" 1 a\n", " 1 a\r\n", 1);
    for odd in [swapped, padded, returns] {
        assert!(read_header(odd.as_bytes()).is_err(), "{odd}");
    }
    assert_eq!(read_header(text.as_bytes()).unwrap().0, manifest);
}

#[test]
fn the_last_good_version_stays_until_the_next_is_there() {
    let [one, two, three] = ["1", "2", "3"].map(|digit| Version::parse(&digit.repeat(64)).unwrap());
    let held = |versions: &'static [usize]| move |version| versions.iter().any(|at| [one, two, three][*at] == version);
    assert_eq!(served(two, Some(one), held(&[0, 1, 2])), Some(two));
    assert_eq!(served(two, Some(one), held(&[0, 2])), Some(one));
    assert_eq!(served(two, Some(one), held(&[2])), None, "never one that nobody pinned");
    assert_eq!(served(two, None, held(&[0])), None);
}

#[test]
fn the_oldest_that_are_in_nobodys_use_are_removed() {
    let version = |n: i64| Version(Digest::of(n.to_string().as_bytes()));
    let held: Vec<_> = (0..20).map(|n| (version(n), Timestamp(n))).collect();
    let mut gone = superfluous(&held, &[version(0), version(19)].into(), 16);
    gone.sort();
    let mut expected = vec![version(1), version(2)];
    expected.sort();
    assert_eq!(gone, expected);
    assert!(superfluous(&held[..16], &BTreeSet::new(), 16).is_empty());
}

/// Whatever the files, they come back from their pack, or are refused for a reason.
#[test]
fn files_come_back_from_their_pack() {
    let packed = Cell::new(0_u32);
    let config = ProptestConfig { cases: CASES, ..ProptestConfig::default() };
    let files = btree_map("[a-c]{1,2}(/[a-c.]{1,2}){0,2}", vec(any::<u8>(), 0..40), 0..6);
    proptest!(config, |(files in files)| {
        match pack(&files) {
            Ok((manifest, bytes)) => {
                packed.set(packed.get() + 1);
                let (read, found) = unpack(&bytes).unwrap();
                prop_assert_eq!(&read, &manifest);
                let paths = read.files().iter().map(|file| file.path.clone());
                let found: BTreeMap<_, _> = paths.zip(found.into_iter().map(<[u8]>::to_vec)).collect();
                prop_assert_eq!(&found, &files);
                let contents = read_header(&bytes).unwrap().1;
                for file in manifest.files() {
                    let begin = contents + usize::try_from(manifest.file(&file.path).unwrap().1).unwrap();
                    let end = begin + usize::try_from(file.bytes).unwrap();
                    prop_assert_eq!(&bytes[begin..end], &files[&file.path][..]);
                }
            }
            Err(_) => {
                let is_folder = |path: &str| path::folders(path).any(|one| files.contains_key(one));
                let is_odd = |path: &String| check_path(path).is_err() || is_folder(path);
                prop_assert!(files.is_empty() || files.keys().any(is_odd), "{:?}", files.keys());
            }
        }
    });
    println!("packs of random files: {CASES} random cases, {} packed", packed.get());
    assert!(packed.get() > CASES / 10);
}

/// No bytes make the reader of packs panic, and what it takes stays in its folder.
#[test]
fn any_bytes_are_read_or_refused() {
    let config = ProptestConfig { cases: CASES, ..ProptestConfig::default() };
    let line = "[0-9a-f]{62,66} [0-9]{1,3} [a-c./]{1,4}\n";
    proptest!(config, |(lines in vec(line, 0..4), bytes in vec(any::<u8>(), 0..200), is_begun in any::<bool>())| {
        let begin = if is_begun { format!("bailiwick bundle 1\n{}\n", lines.concat()) } else { String::new() };
        let bytes = [begin.as_bytes(), &bytes].concat();
        if let Ok((manifest, contents)) = read_header(&bytes) {
            prop_assert!(manifest.files().iter().all(|file| check_path(&file.path).is_ok()));
            prop_assert!(contents <= bytes.len());
        }
        prop_assert!(unpack(&bytes).is_err());
    });
    println!("bytes that may be a pack: {CASES} random cases");
}
