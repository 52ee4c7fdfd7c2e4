//! Tests with random events in random order: what the machine guarantees must hold in each run.

use super::*;

/// A random event.
#[derive(Clone, Debug)]
enum RandomEvent {
    Headers(u16, Option<&'static str>, Option<u64>),
    Chunk(Vec<u8>),
    Eof,
    BodyError,
    FetchError,
    Timer,
    ClientGone,
    Resting(u8),
}

fn random_event() -> impl Strategy<Value = (RandomEvent, i64, i8)> {
    let status = prop_oneof![9 => Just(200u16), 1 => Just(204), 4 => 300..600u16, 1 => any::<u16>()];
    let kind = prop_oneof![
        6 => Just(Some("text/event-stream")),
        6 => Just(Some("application/json")),
        1 => Just(Some("text/html")),
        1 => Just(None),
    ];
    let text = prop_oneof![
        Just(ROLE.as_bytes().to_vec()),
        Just(CONTENT.as_bytes().to_vec()),
        Just(CONTENT.as_bytes().to_vec()),
        Just(CONTENT.as_bytes().to_vec()),
        Just(ERROR.as_bytes().to_vec()),
        Just(DONE.as_bytes().to_vec()),
        Just(b"{\"id\":1}".to_vec()),
        Just(b"data: {".to_vec()),
        Just(b": ping\n".to_vec()),
        Just(b"data: ping\n\n".to_vec()),
        Just(vec![b'x'; 70_000]),
        Just([b"{\"a\":\"", &[b'x'; 70_000][..]].concat()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let what = prop_oneof![
        12 => (status, kind, proptest::option::of(any::<u64>())).prop_map(|(s, k, r)| RandomEvent::Headers(s, k, r)),
        16 => text.prop_map(RandomEvent::Chunk),
        3 => Just(RandomEvent::Eof),
        1 => Just(RandomEvent::BodyError),
        1 => Just(RandomEvent::FetchError),
        2 => Just(RandomEvent::Timer),
        1 => Just(RandomEvent::ClientGone),
        1 => any::<u8>().prop_map(RandomEvent::Resting),
    ];
    // Most events belong to the current attempt, some to an earlier or a later attempt.
    let skew = prop_oneof![8 => Just(0i8), 1 => -2..3i8];
    (what, prop_oneof![20 => 0..100i64, 1 => 0..400_000i64], skew)
}

#[test]
fn whatever_happens_the_machine_keeps_its_promises() {
    let expect = prop_oneof![Just(Expect::Stream), Just(Expect::Json), Just(Expect::Any)];
    let limits = (1..=3u8, 50..200_000u64, 50..300_000u64, 500..700_000u64, 50..100_000u64);
    let strategy = (
        expect,
        (proptest::bool::weighted(0.2), any::<bool>(), 0..12u8),
        limits,
        proptest::collection::vec(random_event(), 0..40),
    );
    let plan = german_plan();
    let (cases, sends, commits) = (Cell::new(0u32), Cell::new(0usize), Cell::new(0u32));
    TestRunner::new(ProptestConfig::with_cases(10_000))
        .run(
            &strategy,
            |(expect, (stateful, reads_only, drained), (most, headers, first_token, total, idle), random_events)| {
                cases.set(cases.get() + 1);
                let limits = limits_of(most, headers, first_token, total, idle);
                let fence: Vec<_> = plan.targets().iter().map(|target| target.id().clone()).collect();
                let task = chat_task(plan.clone(), expect, limits);
                let mut run = Run::new(Task { stateful, reads_only, ..task });
                let (mut budget, mut now) = (Budget::new(0), 0);
                for _ in 0..drained {
                    let _ = budget.take(now);
                }
                let mut watch = Watch::default();
                watch.see(&step(&mut run, &mut budget, now, Event::Start))?;
                for (random_event, after, skew) in random_events {
                    now += after;
                    let attempt = u8::try_from(watch.sent.len()).unwrap().saturating_add_signed(skew);
                    if let RandomEvent::Resting(mask) = random_event {
                        run.skip_resting(|target| mask >> (target.id().as_str().as_bytes()[4] % 8) & 1 == 1);
                    }
                    let Some(event) = event_of(random_event, attempt, after % 7 == 3) else { continue };
                    if matches!(event, Event::Timer { .. }) && skew == 0 {
                        // Only timers that `SetTimer` started can fire.
                        if !watch.has_timer {
                            continue;
                        }
                        watch.has_timer = false;
                    }
                    watch.see(&step(&mut run, &mut budget, now, event))?;
                    prop_assert_eq!(
                        run.is_done(),
                        watch.ended,
                        "the run is done exactly if its actions ended the request"
                    );
                    prop_assert!(run.is_done() || watch.has_timer, "a run that waits has a timer");
                }
                // Every run ends, at the latest when the client leaves.
                watch.see(&step(&mut run, &mut budget, now, Event::ClientGone))?;
                prop_assert!(run.is_done() && !watch.has_timer);
                let most = if stateful { 1 } else { usize::from(most) };
                let again = usize::from(stateful && reads_only);
                prop_assert!(watch.sent.len() <= (most + again).min(3));
                check_record(run.record(), &watch, &fence)?;
                sends.set(sends.get() + watch.sent.len());
                commits.set(commits.get() + u32::from(watch.committed));
                Ok(())
            },
        )
        .unwrap();
    println!("runs: {}, sends: {}, commits: {}", cases.get(), sends.get(), commits.get());
    assert!(commits.get() > 500);
}

/// The event for the machine; `None` if the random event isn't an event of the machine.
fn event_of(random_event: RandomEvent, attempt: AttemptNumber, packed: bool) -> Option<Event> {
    Some(match random_event {
        RandomEvent::Headers(status, kind, retry_after_ms) => {
            Event::Headers { attempt, status, content_type: kind.map(str::to_owned), packed, retry_after_ms }
        }
        RandomEvent::Chunk(bytes) => Event::Chunk { attempt, bytes },
        RandomEvent::Eof => Event::Eof { attempt },
        RandomEvent::BodyError => Event::BodyError { attempt },
        RandomEvent::FetchError => Event::FetchError { attempt },
        RandomEvent::Timer => Event::Timer { attempt },
        RandomEvent::ClientGone => Event::ClientGone,
        RandomEvent::Resting(_) => return None,
    })
}

/// Compares a run's record with what its driver saw.
fn check_record(record: &Record, watch: &Watch, fence: &[EndpointId]) -> Result<(), TestCaseError> {
    for (attempt, target) in record.attempts.iter().zip(&watch.sent) {
        prop_assert_eq!(attempt.target, *target);
        prop_assert_eq!(&attempt.endpoint, &fence[*target], "sent outside the fence");
        prop_assert!(attempt.outcome.is_some(), "the record has the outcome of each attempt");
    }
    prop_assert_eq!(record.committed().is_some(), watch.committed);
    let blameless = |outcome| matches!(outcome, Outcome::Committed | Outcome::Refused(_) | Outcome::ClientGone);
    let failed = record.attempts.iter().filter_map(|attempt| attempt.outcome);
    let failed = failed.filter(|outcome| !blameless(*outcome)).count();
    let broke = matches!(record.end, Some(End::Interrupted | End::ErrorEvent | End::Idle));
    prop_assert_eq!(watch.rests, failed + usize::from(broke), "each failure, and nothing else, makes an endpoint rest");
    Ok(())
}

/// The state of a run as its driver sees it. Each action is checked against this state.
#[derive(Default)]
struct Watch {
    sent: Vec<usize>,
    /// Whether an endpoint was sent the request twice.
    repeated: bool,
    committed: bool,
    ended: bool,
    has_timer: bool,
    rests: usize,
}

impl Watch {
    fn see(&mut self, actions: &[Action]) -> Result<(), TestCaseError> {
        for action in actions {
            prop_assert!(!self.ended, "{action:?} after the end");
            match action {
                Action::Send { attempt, target } => {
                    prop_assert!(!self.committed, "a send after the commit");
                    let is_again = self.sent.contains(target);
                    prop_assert!(!is_again || self.sent.last() == Some(target) && !self.repeated, "an endpoint twice");
                    self.repeated |= is_again;
                    prop_assert!(!self.has_timer, "a send while a timer runs");
                    self.sent.push(*target);
                    prop_assert_eq!(usize::from(*attempt), self.sent.len());
                }
                Action::SetTimer { .. } => self.has_timer = true,
                Action::CancelTimer { .. } => {
                    prop_assert!(self.has_timer, "a timer cancelled that doesn't run");
                    self.has_timer = false;
                }
                Action::Abort { attempt } => {
                    prop_assert_eq!(usize::from(*attempt), self.sent.len());
                    self.ended = self.sent.is_empty();
                }
                Action::Commit { status, .. } => {
                    prop_assert!(!self.committed, "two commits");
                    prop_assert!((200..=299).contains(status));
                    self.committed = true;
                }
                Action::Emit { .. } => prop_assert!(self.committed, "bytes before the commit"),
                Action::EmitTail { .. } | Action::CutStream | Action::Finish => {
                    prop_assert!(self.committed && !self.has_timer);
                    self.ended = true;
                }
                Action::Reply { .. } => {
                    prop_assert!(!self.committed && !self.has_timer);
                    self.ended = true;
                }
                Action::CoolDown { .. } => {
                    self.rests += 1;
                    prop_assert!(self.rests <= self.sent.len(), "an endpoint rests twice for one attempt");
                }
            }
        }
        // If the client leaves, the run ends without an action for the client.
        if let [.., Action::Abort { .. }] = actions {
            self.ended = true;
        }
        Ok(())
    }
}
