//! Drills whose node gives no answer: the answer was lost, the node was restarted, out of reach, or it is gone. And
//! those of which the node answers that there is none.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_tests::node::Setup;
use bailiwick_tests::wait;
use serde_json::{Value, json};

use super::scheduled::this_minute;
use super::{Runner, last, ready, rules, share};
use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{follower, publish, writer_of};

/// What is connected to instead of a node: it passes on what comes, and keeps one answer to itself when it is told so.
struct Between {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: Mutex<SocketAddr>,
    loses: Mutex<Option<Loss>>,
    is_closed: AtomicBool,
}

/// The answers that get lost.
struct Loss {
    /// How their requests begin.
    request: &'static str,
    /// How many of them arrive before.
    arrive: usize,
    /// Whether all further ones are lost.
    is_for_long: bool,
}

impl Between {
    fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared =
            Arc::new(Shared { to: Mutex::new(to), loses: Mutex::default(), is_closed: AtomicBool::new(false) });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.is_closed.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || pass(&client, &shared));
            }
        });
        Self { address, shared }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Keeps the answer to the next request that begins so.
    fn loses(&self, request: &'static str) {
        self.loses_by(Some(Loss { request, arrive: 0, is_for_long: false }));
    }

    fn loses_by(&self, loss: Option<Loss>) {
        *self.shared.loses.lock().unwrap_or_else(PoisonError::into_inner) = loss;
    }

    /// Whether that answer was lost.
    fn has_lost(&self) -> bool {
        self.shared.loses.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// From now on it leads to another node.
    fn leads_to(&self, to: SocketAddr) {
        *self.shared.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Passes on what comes by one connection, until either side ends it.
fn pass(client: &TcpStream, shared: &Shared) {
    let to = *shared.to.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(node) = TcpStream::connect(to) else { return };
    let is_lost = AtomicBool::new(false);
    let end = || {
        let _ = client.shutdown(Shutdown::Both);
        let _ = node.shutdown(Shutdown::Both);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            copy(&node, client, |_| !is_lost.load(Ordering::Relaxed));
            end();
        });
        copy(client, &node, |piece| {
            let mut loses = shared.loses.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *loses {
                Some(loss) if piece.starts_with(loss.request.as_bytes()) => {
                    is_lost.store(loss.arrive == 0, Ordering::Relaxed);
                    if loss.arrive == 0 && !loss.is_for_long {
                        *loses = None;
                    } else {
                        loss.arrive = loss.arrive.saturating_sub(1);
                    }
                }
                _ => {}
            }
            true
        });
        end();
    });
}

/// Passes on each piece that `passes`.
fn copy(mut from: &TcpStream, mut to: &TcpStream, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !passes(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

#[test]
fn a_drill_whose_first_answer_is_lost_is_found_and_taken_back() {
    let world = World::start();
    let node = Setup::new(&rules(&world, &json!({ "for": "10m", "ramp": [100] })), ZONE).start();
    ready(&node);
    let between = Between::to(node.api);
    between.loses("POST /v1/drills ");
    let (is_fine, record) = Runner::start(&node, &between.url(), "record", &["london"]).ends();
    assert!(between.has_lost(), "a share was asked for");
    assert_eq!((is_fine, &record["outcome"]), (false, &json!("aborted")));
    let why = record["why"][0].as_str().unwrap_or_default();
    assert!(why.starts_with("the node gave no answer when it was asked to begin: "), "{record:#}");
    let last = last(&node);
    assert!(last["began"].is_string() && record["began"] == last["began"], "{record:#}\n{last:#}");
    assert!(last["ended"].as_str().is_some_and(|ended| ended.starts_with("it is broken off: ")), "{last:#}");
    assert_eq!(share(&node), 0);
}

#[test]
fn a_node_that_was_restarted_and_its_followers_learn_that_the_drill_has_ended() {
    let world = World::start();
    let writer = writer_of(&rules(&world, &json!({ "for": "10m", "ramp": [100] })), "");
    let between = Between::to(writer.api);
    let other = follower(&[between.url()], "").start();
    wait::until_true("the other node has the rules", || other.get("/v1/drills").contains("uk-london"));
    ready(&writer);
    ready(&other);
    let runner = Runner::start(&writer, &between.url(), "record", &["london"]);
    wait::until_true("both send all elsewhere", || share(&writer) == 100 && share(&other) == 100);
    let began = last(&writer)["began"].clone();
    let writer = writer.stop().start();
    assert_eq!((share(&writer), last(&writer)), (0, Value::Null), "it has forgotten the drill");
    between.leads_to(writer.api);
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"]), (false, &json!("aborted")), "{record:#}");
    assert_eq!(record["why"], json!(["the node no longer knows of it"]));
    let ended = json!("it is broken off: the node no longer knows of it");
    assert_eq!((&last(&writer)["began"], &last(&writer)["ended"]), (&began, &ended));
    wait::until_true("the follower has heard it", || last(&other)["ended"] == ended);
    assert_eq!((share(&other), &last(&other)["began"]), (0, &began));
}

/// How long after the last look all clients were back, in milliseconds.
fn after_last_look(record: &Value) -> i64 {
    let time = |name: &str| {
        let text = record[name].as_str().unwrap_or_else(|| panic!("{record:#}"));
        bailiwick_rules::time::Timestamp::parse(text).expect("a time").0
    };
    time("ended") - time("until")
}

#[test]
fn rules_without_a_drill_that_is_under_way_end_it_at_once() {
    let world = World::start();
    let with_drill = rules(&world, &json!({ "for": "10m", "ramp": [100] }));
    let node = writer_of(&with_drill, "");
    ready(&node);
    let runner = Runner::start(&node, &format!("http://{}", node.api), "record", &["london"]);
    wait::until_true("all are elsewhere", || share(&node) == 100);
    let mut without = with_drill;
    without["revision"] = json!(2);
    without.as_object_mut().unwrap().remove("drills");
    publish(&node, &without, "no more drills", &[]);
    wait::until_true("all are back", || share(&node) == 0);
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"]), (false, &json!("aborted")), "{record:#}");
    let why = record["why"][0].as_str().unwrap_or_default();
    assert!(why.starts_with("the node has ended it: the rules have no drill \"london\""), "{record:#}");
    // It looks each second. What was asked for last would end after 15.
    let after_last_look = after_last_look(&record);
    assert!((0..=5_000).contains(&after_last_look), "{after_last_look} ms\n{record:#}");
}

#[test]
fn when_the_node_is_gone_the_end_is_when_the_last_share_ends_by_itself() {
    let world = World::start();
    let mut node = Setup::new(&rules(&world, &json!({ "for": "10m", "ramp": [100] })), ZONE).start();
    ready(&node);
    let runner = Runner::start(&node, &format!("http://{}", node.api), "record", &["london"]);
    wait::until_true("all are elsewhere", || share(&node) == 100);
    node.process.signal("KILL");
    node.process.wait();
    let (is_fine, record) = runner.ends();
    assert_eq!((is_fine, &record["outcome"]), (false, &json!("aborted")));
    assert!(record["why"][0].as_str().is_some_and(|why| why.starts_with("the node gave no answer: ")), "{record:#}");
    // It looks each second, and asks for 15 seconds.
    let after_last_look = after_last_look(&record);
    assert!((13_000..=16_000).contains(&after_last_look), "{after_last_look} ms\n{record:#}");
}

#[test]
fn a_scheduled_drill_whose_node_gives_no_answer_at_its_time_begins_when_it_does() {
    let world = World::start();
    let drill = json!({ "weekly": this_minute(), "for": "10m", "ramp": [100] });
    let node = Setup::new(&rules(&world, &drill), ZONE).start();
    ready(&node);
    let between = Between::to(SocketAddr::from(([127, 0, 0, 1], 1)));
    let runner = Runner::start(&node, &between.url(), "record", &["--scheduled"]);
    runner.says("the API can't be reached at ");
    // Whether the drill ran already is told, and nothing more.
    between.loses("GET /v1/drills/london ");
    between.leads_to(node.api);
    wait::until_true("it began by itself", || share(&node) == 100);
    assert!(between.has_lost());
}

#[test]
fn a_scheduled_drill_whose_node_falls_silent_before_the_first_step_begins_when_it_answers_again() {
    let world = World::start();
    let drill = json!({ "weekly": this_minute(), "for": "10m", "ramp": [100] });
    let node = Setup::new(&rules(&world, &drill), ZONE).start();
    ready(&node);
    let between = Between::to(node.api);
    between.loses_by(Some(Loss { request: "GET /v1/drills/london ", arrive: 1, is_for_long: true }));
    let runner = Runner::start(&node, &between.url(), "record", &["--scheduled"]);
    runner.says("london doesn't begin: the node gave no answer before the first step: ");
    assert_eq!(share(&node), 0);
    between.loses_by(None);
    wait::until_true("it began by itself", || share(&node) == 100);
}
