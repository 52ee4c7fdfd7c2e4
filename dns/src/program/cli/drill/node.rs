//! The nodes that a drill is run by. Takes URLs, returns what they tell of drills, and the sum of what all of them
//! counted. Called by the other commands of `bailiwick drill`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::drill::counts::Counted;
use bailiwick_rules::drill::record::{Outcome, Record};
use bailiwick_rules::drill::told::{DrillAsk, DrillLook, DrillsReport};
use bailiwick_rules::id::DrillId;
use bailiwick_rules::report::DrillRecord;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::time::Timestamp;
use clap::Args;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::program::cli::node::{Access, Node, NodeArgs};
use crate::state::load::compile_rules;
use crate::state::snapshot::Rules;
use crate::text::nearest::suggestion;

/// How long a look waits for nodes whose counts are added.
const ALSO_PATIENCE: Duration = Duration::from_secs(3);

/// Which nodes.
#[derive(Debug, Clone, Args)]
pub(super) struct DrillNodeArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,
    /// The API of another node whose counts are added. The same token is sent to it. May be given more than once.
    #[arg(long, value_name = "URL")]
    also: Vec<String>,
}

/// The node that keeps the drill, and those whose counts are added.
pub(super) struct DrillNode {
    main: Node,
    also: Vec<Node>,
    sums: Sums,
}

/// What all nodes counted, without steps back when one of them restarts or is silent for a while.
#[derive(Default)]
struct Sums {
    last: BTreeMap<usize, Counted>,
    total: Option<Counted>,
    /// Whether the rules have changed since the first look.
    have_rules_changed: bool,
}

impl DrillNode {
    /// Finds the nodes and their tokens.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(super) fn find(args: &DrillNodeArgs, access: Access) -> Result<Self, Vec<String>> {
        let main = Node::find(&args.node, access)?;
        let also = args.also.iter().map(|url| {
            let args = NodeArgs { api: Some(url.clone()), ..args.node.clone() };
            Ok(Node::find(&args, Access::Read)?.patient(ALSO_PATIENCE))
        });
        Ok(Self { main, also: also.collect::<Result<_, Vec<String>>>()?, sums: Sums::default() })
    }

    /// The drills of the rules in service, and whether each could begin.
    pub(super) fn drills(&self) -> Result<DrillsReport, Vec<String>> {
        told(self.main.ask(Method::GET, "/v1/drills", None)?)
    }

    /// The drill of this name, by the rules in service.
    pub(super) fn drill(&self, name: &str) -> Result<(DrillId, Drill), Vec<String>> {
        let rules = self.rules()?;
        let table = &rules.table;
        let found = table.drills().iter().find(|(id, _)| id.as_str() == name);
        found.cloned().ok_or_else(|| {
            let hint = suggestion(name, table.drills().iter().map(|(id, _)| id.as_str()));
            vec![format!("the rules have no drill {name:?}; {hint}")]
        })
    }

    /// The rules in service.
    pub(super) fn rules(&self) -> Result<Arc<Rules>, Vec<String>> {
        let bytes = self.main.exchange(Method::GET, "/v1/rules", &[], Vec::new())?.success()?.body;
        let rules = compile_rules(bytes, "the rules in service");
        rules.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// How a drill stands, and what was counted. A node of `--also` that doesn't answer counts nothing new.
    pub(super) fn look(&mut self, name: &DrillId) -> Result<DrillLook, AskError> {
        let path = format!("/v1/drills/{name}");
        let mut look: DrillLook = self.of_drill(Method::GET, &path, None)?;
        self.sums.add(0, look.counted.clone());
        // All at once, so that several silent ones don't let the share run out that the drill has asked for.
        let others: Vec<Option<DrillLook>> = std::thread::scope(|scope| {
            let path = &path;
            let look = |node: &Node| node.ask(Method::GET, path, None).and_then(told::<DrillLook>).ok();
            let ask = |node| scope.spawn(move || look(node));
            let asked: Vec<_> = self.also.iter().map(ask).collect();
            asked.into_iter().map(|one| one.join().ok().flatten()).collect()
        });
        for (nth, other) in others.into_iter().enumerate() {
            if let Some(other) = other {
                self.sums.add(nth + 1, other.counted);
            }
        }
        if let Some(total) = &self.sums.total {
            look.counted = total.clone();
        }
        Ok(look)
    }

    /// Begins a drill, or goes on with one.
    pub(super) fn ask(
        &self,
        name: &DrillId,
        began: Option<Timestamp>,
        share: u8,
        hold_ms: u64,
    ) -> Result<DrillRecord, AskError> {
        let body = json!(DrillAsk { name: name.clone(), began, share, hold_ms });
        self.of_drill(Method::POST, "/v1/drills", Some(&body))
    }

    /// Sends a request about a drill, and tells what an answer that is no success says of it.
    fn of_drill<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, AskError> {
        let headers = body.map(|_| (reqwest::header::CONTENT_TYPE, "application/json".to_owned()));
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.main.exchange(method, path, headers.as_slice(), body.into_bytes());
        let answer = answer.map_err(AskError::NoAnswer)?;
        let refusal = refusal(answer.status.as_u16(), &answer.body);
        let answer = answer.success().map_err(refusal)?;
        serde_json::from_slice(&answer.body).map_err(|error| AskError::NoAnswer(unreadable(&error)))
    }

    /// Ends the drill of this name that is under way.
    pub(super) fn end(&self, name: &str, reason: &str) -> Result<DrillRecord, Vec<String>> {
        let path = format!("/v1/drills/{name}");
        told(self.main.ask(Method::DELETE, &path, Some(&json!({ "reason": reason })))?)
    }

    /// Ends this run, even if the node no longer knows of it: others may.
    pub(super) fn end_run(&self, run: &DrillRecord, reason: &str) -> Result<DrillRecord, AskError> {
        let path = format!("/v1/drills/{}", run.name);
        let body = json!({ "reason": reason, "began": run.began, "origin": run.origin });
        self.of_drill(Method::DELETE, &path, Some(&body))
    }

    /// When a drill began last, or was refused, as far as the node knows: by the drill under way, and by the record
    /// that its last runner left. `None` if it knows of none.
    pub(super) fn last_begun(&self, name: &DrillId) -> Result<Option<Timestamp>, Vec<String>> {
        let told = self.drills()?;
        let last = told.last.filter(|last| last.name == *name).map(|last| last.began);
        let kept: Value = self.main.ask(Method::GET, "/v1/drill-records", None)?;
        let kept = kept["records"].as_array().cloned().unwrap_or_default();
        let kept = kept.iter().filter(|record| record["drill"] == name.as_str());
        let kept = kept.filter_map(|record| serde_json::from_value(record.clone()).ok().and_then(|one| begun_at(&one)));
        Ok(kept.chain(last).max())
    }

    /// Leaves the record of a drill with the node.
    pub(super) fn leave(&self, record: &Record) -> Result<(), Vec<String>> {
        let path = format!("/v1/drill-records/{}", record.drill);
        let headers = [(reqwest::header::CONTENT_TYPE, "application/json".to_owned())];
        let body = serde_json::to_vec(record).map_err(|error| vec![error.to_string()])?;
        self.main.exchange(Method::PUT, &path, &headers, body)?.success().map(drop)
    }

    /// The newest record of a drill that the node keeps.
    pub(super) fn record(&self, name: &str) -> Result<Record, Vec<String>> {
        told(self.main.ask(Method::GET, &format!("/v1/drill-records/{name}"), None)?)
    }
}

/// When the run of a record began or was refused; `None` if it was given up before its first share, and may be due
/// still.
pub(super) fn begun_at(record: &Record) -> Option<Timestamp> {
    let is_refused = matches!(record.outcome, Outcome::Capacity | Outcome::Blocked);
    record.began.or(is_refused.then_some(record.since))
}

/// Why a drill isn't begun or renewed, or why nothing is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AskError {
    /// The node refuses it, for these reasons.
    Refused(Vec<String>),
    /// The rules in service have no drill of this name. If it was under way, the node has ended it.
    Gone(Vec<String>),
    /// Nobody knows: the node gave no answer, or one that says nothing.
    NoAnswer(Vec<String>),
}

impl AskError {
    /// The reasons.
    pub(super) fn reasons(self) -> Vec<String> {
        match self {
            Self::Refused(reasons) | Self::Gone(reasons) | Self::NoAnswer(reasons) => reasons,
        }
    }
}

impl From<AskError> for Vec<String> {
    fn from(error: AskError) -> Self {
        error.reasons()
    }
}

/// What an answer that is no success says of a drill. Only the API says that there is none: a 404 of another form is
/// that of a proxy, or of another program.
fn refusal(status: u16, body: &[u8]) -> fn(Vec<String>) -> AskError {
    let is_of_api = || serde_json::from_slice(body).is_ok_and(|told: Value| told["error"]["message"].is_string());
    match status {
        404 if is_of_api() => AskError::Gone,
        400 | 409 | 422 => AskError::Refused,
        // These say nothing of the drill: a token that is changed just now, or too many wrong ones.
        _ => AskError::NoAnswer,
    }
}

fn told<T: DeserializeOwned>(value: Value) -> Result<T, Vec<String>> {
    serde_json::from_value(value).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Vec<String> {
    vec![format!("the node's answer is none of this version: {error}")]
}

impl Sums {
    /// Adds what a node counted since it was asked last. Its first answer is only what later ones are compared with: it
    /// has the counts of the whole time since its process began.
    fn add(&mut self, node: usize, counted: Counted) {
        let mut new = match self.last.get(&node) {
            Some(last) => counted.since_look(last),
            None if self.total.is_some() => counted.since(&counted),
            None => counted.clone(),
        };
        // Workers get rules later than nodes, and count a request when it ends. So what they count from now on may have
        // been decided by either rules, for as long as a stream may last.
        self.have_rules_changed |= self.last.get(&node).is_some_and(|last| last.rules_sha256 != counted.rules_sha256);
        if self.have_rules_changed {
            new.checked.leave_out_edge();
        }
        self.last.insert(node, counted);
        let Some(total) = &mut self.total else {
            self.total = Some(new);
            return;
        };
        if node == 0 {
            (total.at, total.workers, total.revision) = (new.at, new.workers, new.revision);
            total.rules_sha256 = new.rules_sha256;
            total.regions.values_mut().for_each(|region| region.load = None);
        } else {
            total.workers += new.workers;
        }
        for (name, region) in new.regions {
            let sum = total.regions.entry(name).or_default();
            sum.dns += region.dns;
            sum.edge.merge(&region.edge);
            sum.load = sum.load.or(region.load);
        }
        total.nowhere.merge(&new.nowhere);
        total.checked.merge(&new.checked);
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::drill::counts::Checked;

    use super::*;

    fn counted(begun: i64, dns: u64) -> Counted {
        let histogram = json!(bailiwick_rules::observe::Histogram::default());
        let edge = json!({ "sent": 0, "requests": 0, "failed": 0, "refused": 0, "first_token": histogram });
        serde_json::from_value(json!({ "node": "ns", "begun": Timestamp(begun), "at": Timestamp(1), "revision": 1,
            "rules_sha256": "", "workers": 1, "regions": { "fra": { "dns": dns, "edge": edge, "load": 0.5 } },
            "nowhere": edge, "checked": Checked { dns, ..Checked::default() } }))
        .unwrap()
    }

    #[test]
    fn only_the_api_itself_says_that_there_is_no_drill() {
        let of = |status, body: &str| refusal(status, body.as_bytes())(Vec::new());
        let ours = r#"{ "error": { "message": "the rules have no drill \"lon\"" } }"#;
        assert_eq!(of(404, ours), AskError::Gone(Vec::new()));
        for body in ["", "<html>Not Found</html>", "{}", r#"{ "error": "not found" }"#] {
            assert_eq!(of(404, body), AskError::NoAnswer(Vec::new()), "{body}");
        }
        assert_eq!(of(409, ours), AskError::Refused(Vec::new()));
        assert_eq!([401, 429, 500, 503].map(|status| of(status, ours)), [(); 4].map(|()| AskError::NoAnswer(vec![])));
    }

    #[test]
    fn counts_of_several_nodes_add_up_and_a_restart_takes_nothing_back() {
        let mut sums = Sums::default();
        let mut told = |node, begun, dns| {
            sums.add(node, counted(begun, dns));
            let total = sums.total.as_ref().unwrap();
            (total.regions.values().next().unwrap().dns, total.checked.dns)
        };
        assert_eq!(told(0, 0, 10), (10, 10));
        assert_eq!(told(1, 0, 5_000), (10, 10), "the first answer has its whole time");
        assert_eq!(told(0, 0, 12), (12, 12));
        assert_eq!(told(1, 0, 5_005), (17, 17));
        assert_eq!(told(1, 9, 1), (18, 18), "the other node was restarted");
    }

    #[test]
    fn what_was_counted_while_the_rules_changed_is_judged_by_neither_book() {
        let (mut sums, mut edge) = (Sums::default(), Vec::new());
        let mut told = |sha: &str, dns, dns_outside| {
            let checked = Checked { dns, dns_outside, edge: dns, edge_outside: dns_outside, ..Checked::default() };
            sums.add(0, Counted { rules_sha256: sha.to_owned(), checked, ..counted(0, dns) });
            let told = sums.total.as_ref().unwrap().checked;
            edge.push((told.edge, told.edge_outside, told.edge_left_out));
            (told.dns, told.dns_outside, told.dns_left_out)
        };
        assert_eq!(told("old", 1_000, 0), (1_000, 0, 0));
        assert_eq!(told("old", 1_010, 0), (1_010, 0, 0));
        // By the new rules nearly all that was answered before lies outside.
        assert_eq!(told("new", 1_030, 900), (1_010, 0, 20));
        assert_eq!(told("new", 1_035, 902), (1_015, 2, 20), "what is outside by the rules in service counts");
        assert_eq!(told("old", 1_040, 1), (1_015, 2, 25), "and isn't taken back by the old ones");
        // Workers may follow later, so nothing that they count after the first change is judged.
        let before = [(1_000, 0, 0), (1_010, 0, 0)];
        assert_eq!(edge, [before[0], before[1], (1_010, 0, 20), (1_010, 0, 25), (1_010, 0, 30)]);
    }
}
