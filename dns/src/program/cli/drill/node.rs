//! The nodes that a drill is run by. Takes URLs, returns what they tell of drills, and the sum of what all of them
//! counted. Called by the other commands of `bailiwick drill`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::drill::counts::{Checked, Counted};
use bailiwick_rules::drill::record::Record;
use bailiwick_rules::drill::told::{DrillAsk, DrillLook, DrillsReport};
use bailiwick_rules::id::DrillId;
use bailiwick_rules::report::DrillRecord;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::time::Timestamp;
use clap::Args;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::program::cli::node::{Node, NodeArgs, Power};
use crate::state::load::compile_rules;
use crate::state::snapshot::Rules;
use crate::text::nearest::suggestion;

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
}

impl DrillNode {
    /// Finds the nodes and their tokens.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(super) fn find(args: &DrillNodeArgs, power: Power) -> Result<Self, Vec<String>> {
        let main = Node::find(&args.node, power)?;
        let also = args.also.iter().map(|url| {
            let args = NodeArgs { api: Some(url.clone()), ..args.node.clone() };
            Node::find(&args, Power::Read)
        });
        Ok(Self { main, also: also.collect::<Result<_, _>>()?, sums: Sums::default() })
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
    pub(super) fn look(&mut self, name: &DrillId) -> Result<DrillLook, Vec<String>> {
        let path = format!("/v1/drills/{name}");
        let mut look: DrillLook = told(self.main.ask(Method::GET, &path, None)?)?;
        self.sums.add(0, look.counted.clone());
        for (nth, node) in self.also.iter().enumerate() {
            if let Ok(other) = node.ask(Method::GET, &path, None).and_then(told::<DrillLook>) {
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
    ) -> Result<DrillRecord, Vec<String>> {
        let ask = DrillAsk { name: name.clone(), began, share, hold_ms };
        told(self.main.ask(Method::POST, "/v1/drills", Some(&json!(ask)))?)
    }

    /// Ends a drill.
    pub(super) fn end(&self, name: &str, reason: &str) -> Result<DrillRecord, Vec<String>> {
        let path = format!("/v1/drills/{name}");
        told(self.main.ask(Method::DELETE, &path, Some(&json!({ "reason": reason })))?)
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

fn told<T: DeserializeOwned>(value: Value) -> Result<T, Vec<String>> {
    serde_json::from_value(value).map_err(|error| vec![format!("the node's answer is none of this version: {error}")])
}

impl Sums {
    /// Adds what a node counted since it was asked last.
    fn add(&mut self, node: usize, counted: Counted) {
        let new = self.last.get(&node).map_or_else(|| counted.clone(), |last| counted.since(last));
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
        let Checked { dns, dns_outside, dns_left_out, edge, edge_by_tenant, edge_outside, edge_left_out } = new.checked;
        let sum = &mut total.checked;
        sum.dns += dns;
        sum.dns_outside += dns_outside;
        sum.dns_left_out += dns_left_out;
        sum.edge += edge;
        sum.edge_by_tenant += edge_by_tenant;
        sum.edge_outside += edge_outside;
        sum.edge_left_out += edge_left_out;
    }
}

#[cfg(test)]
mod tests {
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
    fn counts_of_several_nodes_add_up_and_a_restart_takes_nothing_back() {
        let mut sums = Sums::default();
        let mut told = |node, begun, dns| {
            sums.add(node, counted(begun, dns));
            let total = sums.total.as_ref().unwrap();
            (total.regions.values().next().unwrap().dns, total.checked.dns)
        };
        assert_eq!(told(0, 0, 10), (10, 10));
        assert_eq!(told(1, 0, 5), (15, 15));
        assert_eq!(told(0, 0, 12), (17, 17));
        assert_eq!(told(1, 9, 1), (18, 18), "the other node was restarted");
    }
}
