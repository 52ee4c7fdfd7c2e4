//! Tests of the bundles on a real disk: what is damaged, half written or unknown is never served.

use bailiwick_rules::bundle::pack;
use serde_json::{Value, json};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn name(text: &str) -> BundleId {
    BundleId::parse(text).unwrap()
}

fn region(text: &str) -> RegionId {
    RegionId::parse(text).unwrap()
}

/// A bundle of one file.
fn packed(content: &str) -> (Version, Vec<u8>) {
    let (manifest, bytes) = pack(&BTreeMap::from([("system.md".to_owned(), content.as_bytes().to_vec())])).unwrap();
    (manifest.version(), bytes)
}

/// Rules with these pins.
fn table(pins: &Value) -> Table {
    let rules = json!({ "version": 1, "revision": 1, "bundles": pins,
        "regions": { "lon": { "countries": ["GB"] }, "fra": { "countries": ["DE"] } } });
    Table::compile(rules.to_string().as_bytes()).unwrap()
}

fn pinned(version: Version) -> Table {
    table(&json!({ "prompts": { "version": version } }))
}

struct Disk {
    folder: tempfile::TempDir,
    bundles: Bundles,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundles = Bundles::open(Some(folder.path()));
        Self { folder, bundles }
    }

    fn put(&self, pack: &[u8], table: &Table) -> Version {
        self.bundles.put((&name("prompts"), None), pack, table, NOW).unwrap().0
    }

    fn file(&self, version: Version) -> std::path::PathBuf {
        self.folder.path().join("bundles/prompts").join(version.to_string())
    }

    fn read(&self, version: Version) -> Option<Vec<u8>> {
        let held = self.bundles.stored(&name("prompts"), version)?;
        self.bundles.file(&name("prompts"), version, &held, "system.md")
    }

    fn serves(&self, table: &Table, of: Option<&str>) -> Option<Version> {
        match self.bundles.resolve(table, &name("prompts"), of.map(region).as_ref()) {
            Resolved::Serves { version, .. } => Some(version),
            Resolved::Unpinned | Resolved::Missing(..) => None,
        }
    }

    /// The same folder as a new process finds it.
    fn restarted(self) -> Self {
        let bundles = Bundles::open(Some(self.folder.path()));
        Self { folder: self.folder, bundles }
    }
}

#[test]
fn what_was_pushed_is_served_by_region_also_after_a_restart() {
    let disk = Disk::new();
    let ((one, of_one), (two, of_two)) = (packed("one"), packed("two"));
    let rules = table(&json!({ "prompts": { "version": one, "regions": { "lon": two } } }));
    assert_eq!(disk.bundles.settle(&rules).len(), 2);
    let missing = disk.bundles.resolve(&rules, &name("prompts"), None);
    assert_eq!(missing, Resolved::Missing(one, None));
    assert_eq!(disk.bundles.resolve(&rules, &name("tools"), None), Resolved::Unpinned);
    disk.put(&of_one, &rules);
    for _ in 0..2 {
        // Nobody has chosen the version of all for London, so it gets nothing rather than that.
        assert_eq!((disk.serves(&rules, Some("fra")), disk.serves(&rules, Some("lon"))), (Some(one), None));
        disk.bundles.settle(&rules);
    }
    disk.put(&of_two, &rules);
    let disk = disk.restarted();
    assert_eq!([Some("fra"), Some("lon"), None].map(|of| disk.serves(&rules, of)), [Some(one), Some(two), Some(one)]);
    assert_eq!(disk.read(two).unwrap(), b"two");
    assert!(!disk.bundles.put((&name("prompts"), None), &of_two, &rules, NOW).unwrap().2, "it was there");
}

#[test]
fn the_last_good_version_stays_until_the_next_is_here_whatever_restarts() {
    let disk = Disk::new();
    let ((one, of_one), (two, of_two)) = (packed("one"), packed("two"));
    let (before, after) = (pinned(one), pinned(two));
    disk.put(&of_one, &before);
    disk.bundles.settle(&before);
    assert_eq!(disk.bundles.settle(&after), [(name("prompts"), two)]);
    assert_eq!(disk.serves(&after, Some("lon")), Some(one));
    let disk = disk.restarted();
    assert_eq!(disk.bundles.settle(&after), [(name("prompts"), two)]);
    assert_eq!(disk.serves(&after, Some("lon")), Some(one));
    // A region that gets a pin of its own keeps what it had, too.
    let of_region = table(&json!({ "prompts": { "version": one, "regions": { "lon": two } } }));
    assert_eq!(disk.serves(&of_region, Some("lon")), Some(one));
    disk.put(&of_two, &after);
    assert_eq!(disk.serves(&after, Some("lon")), Some(two));
    assert!(disk.bundles.settle(&after).is_empty());
}

#[test]
fn a_damaged_file_is_never_served() {
    for damage in ["changed", "cut", "gone"] {
        let disk = Disk::new();
        let ((one, of_one), (two, of_two)) = (packed("one"), packed("two"));
        disk.put(&of_one, &pinned(one));
        disk.bundles.settle(&pinned(one));
        disk.put(&of_two, &pinned(two));
        let file = disk.file(two);
        let mut bytes = std::fs::read(&file).unwrap();
        match damage {
            "changed" => *bytes.last_mut().unwrap() ^= 1,
            _ => _ = bytes.pop(),
        }
        std::fs::write(&file, &bytes).unwrap();
        if damage == "gone" {
            std::fs::remove_file(&file).unwrap();
        }
        assert_eq!(disk.read(two), None, "{damage}");
        assert!(!file.exists(), "{damage}: it is removed");
        assert_eq!(disk.serves(&pinned(two), None), Some(one), "{damage}: the last good one stays");
        disk.put(&of_two, &pinned(two));
        assert_eq!(disk.read(two).unwrap(), b"two", "{damage}: it comes back");
        bytes = of_two.clone();
        bytes[30] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(disk.bundles.pack(&name("prompts"), two), None, "{damage}: nor passed on");
    }
}

#[test]
fn half_of_a_file_is_removed_at_the_start() {
    let disk = Disk::new();
    let (one, of_one) = packed("one");
    let (two, of_two) = packed("two");
    disk.put(&of_one, &pinned(one));
    std::fs::write(disk.file(two), &of_two[..of_two.len() - 1]).unwrap();
    let other = disk.file(one).with_file_name(format!("{two}.1-2.new"));
    std::fs::write(&other, &of_two).unwrap();
    let misnamed = disk.file(Version::parse(&"ab".repeat(32)).unwrap());
    std::fs::write(&misnamed, &of_two).unwrap();
    let disk = disk.restarted();
    assert_eq!(disk.bundles.all()[&name("prompts")].keys().collect::<Vec<_>>(), [&one]);
    assert!(!disk.file(two).exists() && !other.exists() && !misnamed.exists());
}

#[test]
fn what_comes_from_elsewhere_is_checked() {
    let disk = Disk::new();
    let ((one, of_one), (two, of_two)) = (packed("one"), packed("two"));
    let put = |pack: &[u8]| disk.bundles.put((&name("prompts"), Some(two)), pack, &pinned(two), NOW);
    assert!(matches!(put(&of_one), Err(PutError::Other(version)) if version == one));
    assert!(matches!(put(&of_two[..20]), Err(PutError::Unfit(_))) && matches!(put(b""), Err(PutError::Unfit(_))));
    assert!(disk.bundles.all().is_empty());
    let nowhere = Bundles::open(None);
    let refused = nowhere.put((&name("prompts"), None), &of_one, &pinned(one), NOW).unwrap_err();
    assert!(refused.to_string().contains("has no state_dir"), "{refused}");
}

#[test]
fn old_versions_that_nobody_uses_are_removed() {
    let disk = Disk::new();
    let (first, of_first) = packed("first");
    let rules = pinned(first);
    disk.put(&of_first, &rules);
    disk.bundles.settle(&rules);
    let later: Vec<Version> = (1..=MOST_VERSIONS as i64 + 2)
        .map(|n| {
            let (version, pack) = packed(&format!("version {n}"));
            let at = Timestamp(NOW.0 + n);
            disk.bundles.put((&name("prompts"), None), &pack, &rules, at).unwrap();
            version
        })
        .collect();
    let held = disk.bundles.all().remove(&name("prompts")).unwrap();
    assert_eq!(held.len(), MOST_VERSIONS + 1);
    assert!(held.contains_key(&first) && !held.contains_key(&later[0]) && !held.contains_key(&later[1]));
    assert!(!disk.file(later[0]).exists() && disk.file(later[2]).exists());
}

/// Version 1 is pinned, and a rollout brings version 2 to these shares.
fn rolled_out((one, two): (Version, Version), shares: &Value) -> Table {
    let rules = json!({ "version": 1, "revision": 1, "bundles": { "prompts": { "version": one } },
        "jurisdictions": { "uk": { "countries": ["GB"] }, "de": { "countries": ["DE"] } },
        "regions": { "lon": { "countries": ["GB"] }, "fra": { "countries": ["DE"] } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["lon", "fra"],
            "residency": [{ "clients": ["uk"], "process_in": ["uk"] }, { "clients": ["de"], "process_in": ["de"] }] } },
        "rollouts": { "next": { "service": "chat", "bundle": "prompts", "to": two, "regions": ["lon", "fra"],
            "checks": { "error_rate": { "max_diff": 0.01 } },
            "progress": { "shares": shares, "since": "2026-12-01T06:00:00Z" } } } });
    Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

#[test]
fn what_a_rollout_brings_is_fetched_kept_and_served_where_all_have_it() {
    let mut disk = Disk::new();
    let ((one, of_one), (two, of_two)) = (packed("one"), packed("two"));
    let none = rolled_out((one, two), &json!({}));
    disk.put(&of_one, &none);
    assert_eq!(disk.bundles.settle(&none), [(name("prompts"), two)], "wanted before anybody gets it");
    // A region that has it all keeps what it had, as long as it isn't here.
    let whole = rolled_out((one, two), &json!({ "lon": 100, "fra": 5 }));
    assert_eq!(disk.bundles.settle(&whole), [(name("prompts"), two)]);
    let resolved = disk.bundles.resolve(&whole, &name("prompts"), Some(&region("lon")));
    assert_eq!(resolved, Resolved::Serves { version: one, pinned: two });
    disk.put(&of_two, &whole);
    assert!(disk.bundles.settle(&whole).is_empty());
    let of = |disk: &Disk, table: &Table| [Some("lon"), Some("fra"), None].map(|of| disk.serves(table, of));
    assert_eq!(of(&disk, &whole), [Some(two), Some(one), Some(one)]);
    // Neither side of it is removed, however many others come.
    for nth in 0..2 * MOST_VERSIONS {
        disk.put(&packed(&format!("other {nth}")).1, &none);
    }
    disk = disk.restarted();
    assert_eq!(of(&disk, &none), [Some(one); 3]);
    assert_eq!([disk.read(one), disk.read(two)], [Some(b"one".to_vec()), Some(b"two".to_vec())]);
    assert!(disk.bundles.all()[&name("prompts")].len() <= 2 + MOST_VERSIONS);
}

#[test]
fn a_node_holds_a_bounded_number_of_bundles() {
    let disk = Disk::new();
    let ((one, pack), (_, other)) = (packed("one"), packed("two"));
    for n in 0..MOST_BUNDLES {
        disk.bundles.put((&name(&format!("b{n}")), None), &pack, &pinned(one), NOW).unwrap();
    }
    let put = |bundle: &str, pack: &[u8]| disk.bundles.put((&name(bundle), None), pack, &pinned(one), NOW);
    assert!(matches!(put("more", &pack), Err(PutError::TooMany)));
    assert!(put("b7", &other).is_ok(), "another version of one that is there");
}
