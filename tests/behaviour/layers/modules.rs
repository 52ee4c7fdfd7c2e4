//! Takes the folder of a crate's sources, returns its modules and what each names of the others. Called by
//! [`super::circles`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{code, is_of_name, without_tests};
use super::sources;

/// A module's path, or that of an item: `["zone", "index"]`. The crate itself is empty.
pub(super) type Names = Vec<String>;

/// The modules of a crate without those that only tests compile.
pub(super) struct Modules(BTreeMap<Names, Module>);

struct Module {
    /// What its code names by a path that begins with `crate`, `super`, `self` or one of its own modules.
    paths: Vec<Names>,
    /// What its `use` lines bring in: each name with the whole path.
    imports: BTreeMap<String, Names>,
}

impl Modules {
    pub(super) fn read(folder: &Path) -> Self {
        let (mut codes, mut of_tests) = (BTreeMap::new(), Vec::<Names>::new());
        for (file, text) in sources(folder).into_iter().filter(|(file, _)| file != "main.rs") {
            let path: Names = match file.trim_end_matches(".rs") {
                "lib" => Names::new(),
                path => path.split('/').map(str::to_owned).collect(),
            };
            let (code, modules) = without_tests(&code(&text));
            of_tests.extend(modules.into_iter().map(|module| [path.clone(), vec![module]].concat()));
            codes.insert(path, code);
        }
        codes.retain(|path, _| !of_tests.iter().any(|tests| path.starts_with(tests)));
        let all: BTreeSet<Names> = codes.keys().cloned().collect();
        Self(codes.into_iter().map(|(path, code)| (path.clone(), Module::read(&path, &code, &all))).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Which module names which other one.
    pub(super) fn uses(&self) -> BTreeSet<(&Names, &Names)> {
        let mut uses = BTreeSet::new();
        for (path, module) in &self.0 {
            for named in &module.paths {
                self.resolve(named, 8, &mut |found| _ = uses.insert((path, found)));
            }
        }
        uses
    }

    /// The module in which an item is, and if that only brings it in from elsewhere, the module it comes from.
    fn resolve<'m>(&'m self, item: &[String], steps: usize, found: &mut impl FnMut(&'m Names)) {
        let known = (0..=item.len()).rev().find_map(|length| {
            self.0.get_key_value(&item[..length]).map(|(path, module)| (path, module, &item[length..]))
        });
        let Some((path, module, rest)) = known else { return };
        found(path);
        let imported = rest.first().and_then(|name| Some((module.imports.get(name)?, &rest[1..])));
        if let (Some((origin, rest)), Some(steps)) = (imported, steps.checked_sub(1)) {
            self.resolve(&[origin.as_slice(), rest].concat(), steps, found);
        }
    }
}

impl Module {
    fn read(own: &Names, code: &str, all: &BTreeSet<Names>) -> Self {
        let (mut imports, mut paths) = (BTreeMap::new(), Vec::new());
        let mut others = String::with_capacity(code.len());
        let mut rest = code;
        while let Some((before, tree)) = split_at_use(rest) {
            others.push_str(before);
            let (tree, after) = tree.split_once(';').unwrap_or((tree, ""));
            let mut flat = Vec::new();
            flatten("", tree, &mut flat);
            for (path, name) in flat {
                let Some(path) = absolute(own, &path, all) else { continue };
                imports.insert(name, path.clone());
                paths.push(path);
            }
            rest = after;
        }
        others.push_str(rest);
        paths.extend(paths_in(&others).filter_map(|path| absolute(own, path, all)));
        Self { paths, imports }
    }
}

/// The code before the next `use`, and behind it.
fn split_at_use(code: &str) -> Option<(&str, &str)> {
    let is_word = |at: usize| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|letter| is_of_name(letter) || letter == '#') && code[at + 3..].starts_with([' ', '\n'])
    };
    let at = code.match_indices("use").map(|(at, _)| at).find(|at| is_word(*at))?;
    Some((&code[..at], &code[at + 3..]))
}

/// The paths of a `use` tree, each with the name that it brings in.
fn flatten(prefix: &str, tree: &str, found: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    if let Some((head, list)) = tree.split_once('{') {
        let list = list.trim_end().trim_end_matches('}');
        let prefix = format!("{prefix}{}", head.trim());
        let (mut depth, mut start) = (0_usize, 0);
        for (at, letter) in list.char_indices().chain([(list.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    flatten(&prefix, &list[start..at], found);
                    start = at + 1;
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = format!("{prefix}{}", path.trim());
        let path = path.trim_end_matches("::self").trim_end_matches("::*");
        let name = if alias.is_empty() { path.rsplit("::").next().unwrap_or_default() } else { alias.trim() };
        found.push((path.to_owned(), name.to_owned()));
    }
}

/// The paths of more than one name that stand in code.
fn paths_in(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|letter: char| !is_of_name(letter) && letter != ':');
    // A type's annotation, as in `name: Type`, leaves a single colon.
    words.map(|word| word.trim_end_matches(':')).filter(|word| word.contains("::") && !word.starts_with(':'))
}

/// The path from the crate's root, if it begins with `crate`, `super`, `self` or one of the module's own modules.
fn absolute(own: &Names, path: &str, all: &BTreeSet<Names>) -> Option<Names> {
    let mut base = own.clone();
    let mut names = path.split("::").map(str::trim).peekable();
    match *names.peek()? {
        "crate" => {
            base.clear();
            names.next();
        }
        "self" => _ = names.next(),
        "super" => {
            while names.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        first => {
            base.push(first.to_owned());
            all.contains(&base).then(|| base.pop())?;
        }
    }
    base.extend(names.map(str::to_owned));
    Some(base)
}
