//! Counts circles between the modules of each crate. There are none.
//!
//! What counts: a module is a file. The modules that one module declares are its children, and each child stands for
//! itself with everything below it. Child A uses child B if any code of A names an item of B: in a `use` line or by a
//! path that begins with `crate`, `super`, `self` or a module's name, also where a module between them re-exports the
//! item. A circle is a group of children that use each other, directly or by others of the group. This is asked at
//! every module that has children, the root of the crate included.
//!
//! What doesn't count: a module and those below it may use each other, as a parent declares its children, re-exports
//! their items, and holds the types that they share. Code that only tests compile is left out, and so are methods
//! that are called without their type being named.

use std::collections::{BTreeMap, BTreeSet};

use bailiwick_tests::geo::root;

use super::modules::{Modules, Names};

/// At one parent: which child uses which, with one example.
type Edges<'m> = BTreeMap<(&'m str, &'m str), (&'m Names, &'m Names)>;

/// The uses between children of each parent.
fn levels(modules: &Modules) -> BTreeMap<&[String], Edges<'_>> {
    let mut levels: BTreeMap<&[String], Edges<'_>> = BTreeMap::new();
    for (user, used) in modules.uses() {
        let shared = user.iter().zip(used).take_while(|(one, other)| one == other).count();
        if let (Some(from), Some(to)) = (user.get(shared), used.get(shared)) {
            levels.entry(&user[..shared]).or_default().entry((from, to)).or_insert((user, used));
        }
    }
    levels
}

/// The groups whose members all reach each other.
fn circles<'m>(edges: &Edges<'m>) -> BTreeSet<BTreeSet<&'m str>> {
    let reached = |from: &'m str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(edges.keys().filter(|(one, other)| *one == at && seen.insert(*other)).map(|(_, to)| *to));
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|(from, _)| (*from, reached(from))).collect();
    let meets = |one: &str, other: &str| reached.get(one).is_some_and(|reached| reached.contains(other));
    let group = |one: &&'m str| -> BTreeSet<&'m str> {
        reached[*one].iter().copied().filter(|other| meets(other, one)).collect()
    };
    reached.keys().map(group).filter(|group| group.len() > 1).collect()
}

/// A circle as a person needs it to open it: each use within it, by one example.
fn reported(parent: &[String], group: &BTreeSet<&str>, edges: &Edges<'_>) -> String {
    let within = edges.iter().filter(|((from, to), _)| group.contains(from) && group.contains(to));
    let uses = within.map(|(_, (user, used))| format!("\n  {} uses {}", user.join("::"), used.join("::")));
    format!("between modules of `{}`:{}", parent.join("::"), uses.collect::<String>())
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let mut found = Vec::new();
    for (folder, least) in [("dns/src", 150), ("edge-worker/src", 90), ("shared/src", 30), ("shared/host/src", 6)] {
        let modules = Modules::read(&root().join(folder));
        assert!(modules.len() >= least, "only {} modules of {folder} were read", modules.len());
        assert!(modules.uses().len() > 2 * least, "only {} uses in {folder} were read", modules.uses().len());
        for (parent, edges) in levels(&modules) {
            let circles = circles(&edges).into_iter();
            found.extend(circles.map(|group| format!("{folder}, {}", reported(parent, &group, &edges))));
        }
    }
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_circle_is_found_below_a_folder_and_behind_a_re_export() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |file: &str, text: &str| {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("writable");
        std::fs::write(file, text).expect("writable");
    };
    write("lib.rs", "mod zone; mod signing; pub use signing::Key;");
    write("zone.rs", "mod index; pub use index::Index; pub struct Name;");
    write("zone/index.rs", "use super::Name; pub struct Index(crate::Key);");
    write("signing.rs", "pub struct Key; // crate::zone");
    let count = || {
        let modules = Modules::read(folder.path());
        levels(&modules).values().map(|edges| circles(edges).len()).sum::<usize>()
    };
    assert_eq!(count(), 0, "a parent and its children aren't a circle");
    write("signing.rs", "use crate::{zone::Index as Of}; pub struct Key(Of);");
    assert_eq!(count(), 1);
    write("signing.rs", "#[cfg(test)]\nmod tests { use crate::zone::Index; }\npub struct Key;");
    assert_eq!(count(), 0, "tests may look anywhere");
    write("zone/index.rs", "use super::{Name, file}; pub struct Index;");
    write("zone/file.rs", "fn go() -> super::Index { super::index::make() }");
    assert_eq!(count(), 1, "siblings below a folder");
}
