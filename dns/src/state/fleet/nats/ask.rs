//! Asks every node over NATS, and answers such questions on a node. The node's side takes [`Answers`], functions that
//! make an answer, and is run by [`super`]. The publisher's side takes a [`Question`], returns the answer of each node,
//! and is called by commands such as `bailiwick rules watch`.
//!
//! A question goes to `bw.ask.<question>`. A node answers on `bw.told.<node>`, where only that node's user may send, so
//! that no node can answer for another. An answer comes in parts, as a server takes messages of 1 MiB by default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Message};
use bailiwick_host::system::random;
use bailiwick_host::system::tasks::Ended;
use bailiwick_rules::time::{Millis, Timestamp};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::bucket::{PART, STATE};
use super::bus::Bus;
use super::health::MOST_NODES;

/// What the subjects of questions begin with.
const ASK: &str = "bw.ask.";
/// What the subjects of answers begin with.
const TOLD: &str = "bw.told.";
/// The header that names the question that is answered.
const ID: &str = "Bw-Id";
/// The header that has the number of a part, counted from 1.
const NUMBER: &str = "Bw-Part";
/// The header that has the number of all parts.
const PARTS: &str = "Bw-Parts";
/// The longest name of a question.
const LONGEST_ID: usize = 32;
/// How long all nodes together may take.
const PATIENCE: Duration = Duration::from_secs(7);
/// A node whose entry is older isn't part of the fleet any more.
const FORGOTTEN: Millis = Millis(86_400_000);

/// What a node may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// What `/v1/fleet` tells.
    Fleet,
    /// What `/v1/traffic` tells.
    Traffic,
}

impl Question {
    const ALL: [(Self, &'static str); 2] = [(Self::Fleet, "fleet"), (Self::Traffic, "traffic")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(question, _)| *question == self).map_or("", |(_, word)| word)
    }

    fn of(subject: &str) -> Option<Self> {
        let word = subject.strip_prefix(ASK)?;
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(question, _)| *question)
    }

    /// The longest answer that is read, in bytes.
    fn most(self) -> usize {
        match self {
            Self::Fleet => 8 << 20,
            // Half a million counts are fewer.
            Self::Traffic => 128 << 20,
        }
    }
}

/// What answers questions. Clones share it.
#[derive(Clone)]
pub(crate) struct Answers(Arc<dyn Fn(Question) -> Vec<u8> + Send + Sync>);

impl Answers {
    /// Answers by this function, which may take a while.
    pub(crate) fn new(answer: impl Fn(Question) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

/// Answers for as long as the connection is used.
pub(super) async fn answer(bus: &Bus, node: &str, answers: Option<&Answers>) -> Ended {
    let Some(answers) = answers else { return std::future::pending().await };
    let Ok(mut questions) = bus.client.subscribe(format!("{ASK}*")).await else { return Ended::Failed };
    while let Some(message) = questions.next().await {
        let id = std::str::from_utf8(&message.payload).ok().filter(|id| is_id(id));
        let (Some(id), Some(question)) = (id, Question::of(&message.subject)) else { continue };
        let answers = answers.clone();
        let Ok(bytes) = tokio::task::spawn_blocking(move || answers.0(question)).await else { continue };
        if let Err(error) = tell(bus, node, id, &bytes).await {
            tracing::debug!("the answer to {} can't be sent: {error}", message.subject);
        }
    }
    Ended::Failed
}

/// Sends an answer in its parts.
async fn tell(bus: &Bus, node: &str, id: &str, bytes: &[u8]) -> Result<(), async_nats::PublishError> {
    let parts = bytes.len().div_ceil(PART).max(1);
    for number in 0..parts {
        let mut headers = HeaderMap::new();
        headers.insert(ID, id);
        headers.insert(NUMBER, (number + 1).to_string().as_str());
        headers.insert(PARTS, parts.to_string().as_str());
        let part = bytes.get(number * PART..bytes.len().min((number + 1) * PART)).unwrap_or_default();
        bus.client.publish_with_headers(format!("{TOLD}{node}"), headers, part.to_vec().into()).await?;
    }
    Ok(())
}

fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Bus {
    /// Asks every node. `each` gets the answers one by one, each with the node's name. Returns the nodes that gave no
    /// answer in time.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn ask_nodes(
        &self,
        question: Question,
        now: Timestamp,
        mut each: impl FnMut(&str, Vec<u8>),
    ) -> Result<Vec<String>, String> {
        let mut awaited = self.known_nodes(now).await?;
        if awaited.is_empty() {
            return Err(format!(
                "no node has an entry in the bucket {STATE} yet; nodes write it when they connect, and every \
                 five minutes; is the clock here right?"
            ));
        }
        let failed = |error: &dyn fmt::Display| self.why(&format!("nodes can't be asked over NATS ({error})"));
        let mut answers = self.client.subscribe(format!("{TOLD}>")).await.map_err(|error| failed(&error))?;
        let (id, deadline) = (format!("{:016x}", random::bits()), Instant::now() + PATIENCE);
        let subject = format!("{ASK}{}", question.word());
        self.client.publish(subject, id.clone().into()).await.map_err(|error| failed(&error))?;
        let (mut gathered, mut is_any_answered) = (Gathered::new(&id, question.most()), false);
        while !awaited.is_empty() {
            let Ok(Some(message)) = timeout_at(deadline, answers.next()).await else { break };
            if let Some((node, bytes)) = AnswerPart::of(&message).and_then(|part| gathered.add(part)) {
                is_any_answered = true;
                awaited.remove(&node);
                each(&node, bytes);
            }
        }
        // A refusal comes without an answer.
        if !is_any_answered && self.was_refused() {
            return Err(self.why("no node answers"));
        }
        Ok(awaited.into_iter().collect())
    }

    /// The nodes of the fleet: each keeps an entry in the bucket, and writes it anew every few minutes.
    async fn known_nodes(&self, now: Timestamp) -> Result<BTreeSet<String>, String> {
        let entries = self.nodes(MOST_NODES).await?;
        let is_known = |noted: &Timestamp| now.since(*noted) <= FORGOTTEN;
        Ok(entries.into_iter().filter(|entry| is_known(&entry.noted)).map(|entry| entry.node).collect())
    }
}

/// A part of a node's answer.
#[derive(Debug, Clone, Copy)]
struct AnswerPart<'a> {
    node: &'a str,
    id: &'a str,
    number: usize,
    parts: usize,
    bytes: &'a [u8],
}

impl<'a> AnswerPart<'a> {
    fn of(message: &'a Message) -> Option<Self> {
        let header = |name: &str| message.headers.as_ref()?.get(name).map(HeaderValue::as_str);
        let count = |name: &str| header(name)?.parse::<usize>().ok().filter(|count| *count > 0);
        let node = message.subject.strip_prefix(TOLD)?;
        Some(Self { node, id: header(ID)?, number: count(NUMBER)?, parts: count(PARTS)?, bytes: &message.payload })
    }
}

/// The parts of answers that have arrived. A node sends its parts in order. A node that doesn't is ignored.
#[derive(Debug)]
struct Gathered<'a> {
    id: &'a str,
    /// The most bytes of one answer.
    most: usize,
    /// The bytes of each node so far, and the number of their parts. `None` if the answer is complete or invalid.
    nodes: BTreeMap<String, Option<(Vec<u8>, usize)>>,
}

impl<'a> Gathered<'a> {
    fn new(id: &'a str, most: usize) -> Self {
        Self { id, most, nodes: BTreeMap::new() }
    }

    /// Adds a part. Returns the node and its answer, once that is whole.
    fn add(&mut self, part: AnswerPart<'_>) -> Option<(String, Vec<u8>)> {
        let is_room = self.nodes.contains_key(part.node) || self.nodes.len() < MOST_NODES;
        if part.id != self.id || !is_room {
            return None;
        }
        // All nodes together may not fill the memory with parts.
        let size: usize = self.nodes.values().flatten().map(|(bytes, _)| bytes.len()).sum();
        let answer = self.nodes.entry(part.node.to_owned()).or_insert_with(|| Some(Default::default()));
        let (bytes, count) = answer.as_mut()?;
        if part.number != *count + 1 || part.parts < part.number || size + part.bytes.len() > self.most {
            *answer = None;
            return None;
        }
        bytes.extend_from_slice(part.bytes);
        *count = part.number;
        let is_whole = part.number == part.parts;
        is_whole.then(|| answer.take()).flatten().map(|(bytes, _)| (part.node.to_owned(), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'a>(node: &'a str, number: usize, parts: usize, bytes: &'a [u8]) -> AnswerPart<'a> {
        AnswerPart { node, id: "x", number, parts, bytes }
    }

    #[test]
    fn an_answer_is_whole_when_its_last_part_has_come() {
        let mut gathered = Gathered::new("x", 10);
        assert_eq!(gathered.add(part("ns1", 1, 2, b"12")), None);
        assert_eq!(gathered.add(part("ns2", 1, 1, b"c")), Some(("ns2".to_owned(), b"c".to_vec())));
        assert_eq!(gathered.add(part("ns1", 2, 2, b"3")), Some(("ns1".to_owned(), b"123".to_vec())));
        assert_eq!(gathered.add(part("ns1", 1, 1, b"again")), None, "one answer of each node");
        assert_eq!(gathered.add(AnswerPart { id: "y", ..part("ns3", 1, 1, b"") }), None, "of another question");
    }

    #[test]
    fn parts_that_do_not_fit_are_passed_over() {
        let mut gathered = Gathered::new("x", 10);
        assert_eq!(gathered.add(part("ns1", 2, 2, b"the second first")), None);
        assert_eq!(gathered.add(part("ns2", 2, 1, b"")), None);
        assert_eq!(gathered.add(part("ns3", 1, 2, b"123456")), None);
        assert_eq!(gathered.add(part("ns4", 1, 1, b"78901")), None, "too much together");
        assert_eq!(gathered.add(part("ns3", 2, 2, b"7890")).map(|(_, bytes)| bytes.len()), Some(10));
        for number in 0..2 * MOST_NODES {
            gathered.add(part(&format!("liar{number}"), 1, 2, b""));
        }
        assert!(gathered.nodes.len() <= MOST_NODES);
    }
}
