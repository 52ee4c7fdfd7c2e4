//! An impact (what a new rules document changes for clients) in words. A fence is the regions that may process a
//! client. Takes an [`Impact`], returns lines for a terminal, Markdown for a review, or one line for a head. Called by
//! `bailiwick rules diff`, and before a document is published.

use core::fmt::Write;

use super::{AffectedClients, FenceChange, Impact, Move, Presence, ServiceImpact, Weight};
use crate::id::RegionId;

/// How many countries or networks a line names before it counts the rest.
const MAX_NAMED: usize = 6;
/// How many lines of one kind a service gets before the rest is counted.
const MAX_LINES: usize = 12;
/// The text in place of a region, for clients that have none.
const NOWHERE: &str = "no region";

/// A part of a whole in per cent, as a person writes it.
#[must_use]
pub(super) fn percentage(part: u64, whole: u64) -> String {
    if part == 0 {
        return "0 %".to_owned();
    }
    let per_mille = (u128::from(part) * 1000 + u128::from(whole) / 2) / u128::from(whole.max(1));
    match per_mille {
        0 => "< 0.1 %".to_owned(),
        _ => format!("{}.{} %", per_mille / 10, per_mille % 10),
    }
}

impl Impact {
    /// For a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("rules {} → {}\n", self.from, self.to);
        let widened_fences = |service: &ServiceImpact| self.widened(service);
        let widened: String = self.services.iter().map(widened_fences).collect();
        if !widened.is_empty() {
            let _ = write!(out, "\nWIDER FENCES: clients may be processed where they might not be before\n{widened}");
        }
        for service in &self.services {
            out.push('\n');
            for (at, line) in self.lines(service).iter().enumerate() {
                let lead = if at == 0 { format!("{}: ", service.title()) } else { "  ".to_owned() };
                let _ = writeln!(out, "{lead}{line}");
            }
        }
        let _ = write!(out, "\n{}", self.summary());
        out
    }

    /// For a review, such as the comment of a pull request.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!("### Rules {} → {}\n", self.from, self.to);
        let widened: String = self.services.iter().map(|service| self.widened(service)).collect();
        if !widened.is_empty() {
            out += "\n> **Wider fences:** clients may be processed where they might not be before\n";
            widened.lines().for_each(|line| out += &format!("> - {}\n", line.trim()));
        }
        let moves = || self.services.iter().flat_map(|service| service.moves.iter().map(move |moved| (service, moved)));
        if moves().next().is_some() {
            out += "\n| service | clients | from | to | queries | IPv4 | IPv6 /48s |\n";
            out += "| --- | --- | --- | --- | --- | --- | --- |\n";
        }
        for (service, moved) in moves() {
            let [queries, ipv4, ipv6] = self.columns(&moved.who.weight, &service.total);
            let (from, to) = (place(moved.from.as_ref()), place(moved.to.as_ref()));
            let (title, clients) = (service.title(), clients(&moved.who));
            out += &format!("| {title} | {clients} | {from} | {to} | {queries} | {ipv4} | {ipv6} |\n");
        }
        out.push('\n');
        for service in &self.services {
            let moves = service.moves.len().min(MAX_LINES + 1);
            for line in self.lines(service).iter().skip(moves) {
                out += &format!("- {}: {line}\n", service.title());
            }
        }
        self.summary().lines().for_each(|line| out += &format!("- {line}\n"));
        out
    }

    /// One line of at most `most` characters, for the head of a document. Services that don't fit are counted.
    #[must_use]
    pub fn to_line(&self, most: usize) -> String {
        let fences = match (self.is_widened(), self.is_tightened()) {
            (true, true) => "fences get wider, and others smaller",
            (true, false) => "fences get wider",
            (false, true) => "0 clients leave their fence, some fences get smaller",
            (false, false) => "0 clients leave their fence",
        };
        let end = match self.converges_within() {
            Some(ttl) => format!("{fences}; converges within {ttl} s"),
            None => fences.to_owned(),
        };
        let mut clauses: Vec<String> = self.services.iter().filter_map(|service| self.part_line(service)).collect();
        let mut bundles: Vec<&str> = self.bundles.iter().map(|change| change.bundle.as_str()).collect();
        bundles.dedup();
        clauses.extend(bundles.iter().map(|name| format!("another version of bundle {name}")));
        let joined = |shown: usize| {
            let more = clauses.len() - shown;
            let rest = (more > 0).then(|| format!("and {more} more"));
            let parts: Vec<&str> =
                clauses[..shown].iter().chain(&rest).map(String::as_str).chain([end.as_str()]).collect();
            parts.join("; ")
        };
        let fits = |shown: &usize| joined(*shown).chars().count() <= most;
        let line = joined((0..=clauses.len()).rev().find(fits).unwrap_or(0));
        line.chars().take(most).collect()
    }

    /// Which part of a service's clients goes elsewhere; `None` if none does.
    fn part_line(&self, service: &ServiceImpact) -> Option<String> {
        let is_counted = self.has_queries && service.total.queries > 0;
        let part = |weight: &Weight| match (is_counted, self.columns(weight, &service.total)) {
            (true, [queries, ..]) => format!("{queries} of queries"),
            (false, [_, ipv4, _]) => format!("{ipv4} of addresses"),
        };
        let ways = [(&service.moved, "move"), (&service.denied, "lose their region"), (&service.admitted, "get one")];
        let ways = ways.into_iter().filter(|(weight, _)| **weight != Weight::default());
        let ways: Vec<String> = ways.map(|(weight, what)| format!("{} {what}", part(weight))).collect();
        (!ways.is_empty()).then(|| format!("{}: {}", service.title(), ways.join(", ")))
    }

    /// The last lines: how much differs in all.
    fn summary(&self) -> String {
        let changed = self.services.len();
        let mut out = match changed {
            0 => format!("Nobody goes elsewhere and no fence differs: {} compared.\n", services(self.compared)),
            _ => format!("{changed} of {} differ.", services(self.compared)),
        };
        if changed > 0 {
            let leave = if self.is_widened() { "Fences get wider, see above." } else { "0 clients leave their fence." };
            out += &format!(" {leave}");
            if let Some(ttl) = self.converges_within() {
                out += &format!(" Converges within {ttl} s (TTL).");
            }
            out.push('\n');
        }
        if self.is_tightened() {
            out += "Some fences get smaller: publish it with --tighten, so that all nodes take it at once.\n";
        }
        if !self.other_answers.is_empty() {
            out += &format!("Other DNS answers for: {}.\n", names(&self.other_answers));
        }
        out += &self.bundles_to_text();
        if !self.has_queries {
            out += "No queries were counted, so addresses alone weigh.\n";
        }
        out
    }

    /// One line for each bundle whose version differs.
    #[must_use]
    pub fn bundles_to_text(&self) -> String {
        self.bundles.iter().map(|change| change.to_line() + "\n").collect()
    }

    fn widened(&self, service: &ServiceImpact) -> String {
        let line = |change: &FenceChange| {
            format!("  {}: {}: also {}\n", service.title(), self.weighed(&change.who, service), reach(change))
        };
        service.wider.iter().map(line).collect()
    }

    /// The lines about one service, moves first.
    fn lines(&self, service: &ServiceImpact) -> Vec<String> {
        let mut lines = Vec::new();
        let way = |moved: &Move| format!("{} → {}", place(moved.from.as_ref()), place(moved.to.as_ref()));
        listed(&mut lines, &service.moves, |moved| format!("{}, {}", self.weighed(&moved.who, service), way(moved)));
        match service.presence {
            Presence::Both => {}
            Presence::New => lines.push("is new".to_owned()),
            Presence::Gone if service.tenants.is_empty() => lines.push("is gone: its names no longer exist".to_owned()),
            Presence::Gone => lines.push("may no longer use it".to_owned()),
        }
        if let Some(was) = &service.was {
            lines.push(format!("takes the place of the service {was}"));
        }
        listed(&mut lines, &service.tighter, |change| {
            format!("{}: smaller fence, no longer {}", self.weighed(&change.who, service), reach(change))
        });
        listed(&mut lines, &service.alone, |stranded| {
            format!("{}: no region left if {} fails", self.weighed(&stranded.who, service), stranded.region)
        });
        listed(&mut lines, &service.moves_when_down, |moved| {
            format!("if {} fails: {}, {}", moved.down, self.weighed(&moved.moves.who, service), way(&moved.moves))
        });
        if lines.is_empty() {
            lines.push("wider fence, see above".to_owned());
        }
        lines
    }

    /// Some clients, with the part of the service's clients that they are.
    fn weighed(&self, who: &AffectedClients, service: &ServiceImpact) -> String {
        let [queries, ipv4, ipv6] = self.columns(&who.weight, &service.total);
        let clients = clients(who);
        match self.has_queries && service.total.queries > 0 {
            true => format!("{clients}, {queries} of queries (IPv4 {ipv4}, IPv6 {ipv6})"),
            false => format!("{clients}, {ipv4} of IPv4 addresses (IPv6 {ipv6})"),
        }
    }

    /// Queries, IPv4 addresses and IPv6 /48s, each as a part of the total.
    fn columns(&self, weight: &Weight, total: &Weight) -> [String; 3] {
        let part = |part: u64, whole: u64| if whole == 0 { "–".to_owned() } else { percentage(part, whole) };
        let queries = if self.has_queries { part(weight.queries, total.queries) } else { "–".to_owned() };
        [queries, part(weight.ipv4, total.ipv4), part(weight.ipv6, total.ipv6)]
    }
}

impl ServiceImpact {
    /// The service's name, with the hosts or tenants that this is about.
    fn title(&self) -> String {
        let mut title = self.service.to_string();
        if !self.hosts.is_empty() {
            title += &format!(" ({})", some(&self.hosts));
        }
        match self.tenants.len() {
            0 => {}
            1 => title += &format!(" for tenant {}", self.tenants[0]),
            _ => title += &format!(" for tenants {}", some(&self.tenants)),
        }
        title
    }
}

/// Adds a line for each item, or for the first items and a count of the rest.
fn listed<T>(lines: &mut Vec<String>, items: &[T], line: impl Fn(&T) -> String) {
    lines.extend(items.iter().take(MAX_LINES).map(line));
    if items.len() > MAX_LINES {
        lines.push(format!("and {} more like this, see --json", items.len() - MAX_LINES));
    }
}

fn place(region: Option<&RegionId>) -> &str {
    region.map_or(NOWHERE, RegionId::as_str)
}

fn services(count: usize) -> String {
    if count == 1 { "1 service".to_owned() } else { format!("{count} services") }
}

/// The first few names, and how many more there are.
fn some<T: ToString>(names: &[T]) -> String {
    let first = names.iter().take(MAX_NAMED).map(T::to_string).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn names(regions: &[RegionId]) -> String {
    some(regions)
}

/// The countries and networks of clients.
fn clients(who: &AffectedClients) -> String {
    let name = |group: &super::Clients| match (group.network, group.country) {
        (Some(network), _) => network.to_string(),
        (None, Some(country)) => country.to_string(),
        (None, None) => "unknown clients".to_owned(),
    };
    some(&who.clients.iter().map(name).collect::<Vec<_>>())
}

/// The countries and regions by which a fence changes.
fn reach(change: &FenceChange) -> String {
    let countries = match (change.anywhere, change.countries.is_empty()) {
        (true, _) => "anywhere".to_owned(),
        (false, true) => String::new(),
        (false, false) => format!("in {}", some(&change.countries)),
    };
    match (countries.is_empty(), change.regions.is_empty()) {
        (true, _) => names(&change.regions),
        (false, true) => countries,
        (false, false) => format!("{countries} ({})", names(&change.regions)),
    }
}
