//! The generator against servers that lose, repeat, delay and falsify answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Answers every query by `answer`, which may change it, refuse it (false) or leave it, until dropped.
struct Answering {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Answering {
    fn start(mut answer: impl FnMut(u64, &mut [u8]) -> bool + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, ended) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&ended);
        std::thread::spawn(move || {
            let (mut buffer, mut number) = ([0; 512], 0);
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                buffer[2] |= 0x80;
                if answer(number, &mut buffer[..length]) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
                number += 1;
            }
        });
        Self { address, ended }
    }

    fn ask(&self, pace: Pace) -> Tally {
        let timed = if matches!(pace, Pace::Rate(_)) { Timed::FromDue } else { Timed::No };
        self.ask_all(&[(pace, timed)]).remove(0)
    }

    fn ask_all(&self, streams: &[(Pace, Timed)]) -> Vec<Tally> {
        let (workload, expected) = (&Workload::of_missing(), Expected { rcode: 0, records: 0 });
        let stream = |&(pace, timed)| Stream { workload, expected, pace, timed, sockets: 2 };
        let streams: Vec<Stream<'_>> = streams.iter().map(stream).collect();
        run(self.address, &streams, Duration::from_millis(100), &mut Draw::new(1)).unwrap()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[test]
fn all_that_is_answered_is_counted() {
    let tally = Answering::start(|_, _| true).ask(Pace::Window(16));
    assert!(tally.answered > 0);
    assert_eq!((tally.sent, tally.wrong), (tally.answered + tally.lost, 0));
    assert!(tally.stray <= tally.lost, "what came too late isn't an answer any more");
    assert_eq!(tally.octets, tally.answered * Workload::of_missing().length() as u64);
}

#[test]
fn wrong_answers_are_told_from_right_ones() {
    let tally = Answering::start(|number, answer| {
        match number % 4 {
            0 => answer[2] &= 0x7f,
            1 => answer[3] |= 2,
            2 => answer[7] = 1,
            _ => {}
        }
        true
    })
    .ask(Pace::Window(16));
    assert!(tally.wrong * 4 >= tally.answered * 2, "{} of {}", tally.wrong, tally.answered);
    assert!(tally.wrong < tally.answered);
}

#[test]
fn answers_nobody_waits_for_are_strays_and_what_they_answered_is_lost() {
    let tally = Answering::start(|number, answer| {
        if number == 0 {
            answer[0] ^= 0x80;
        }
        number != 1
    })
    .ask(Pace::Window(8));
    assert!(tally.stray >= 1 && tally.lost >= 2, "{tally:?}");
    assert_eq!(tally.sent, tally.answered + tally.lost);
}

#[test]
fn a_rate_is_kept_and_timed() {
    let tally = Answering::start(|_, _| true).ask(Pace::Rate(5000));
    assert!((1..=500).contains(&tally.sent), "{}", tally.sent);
    assert_eq!(tally.latencies.len() as u64, tally.answered);
    assert!(tally.latencies.is_sorted());
}

#[test]
fn streams_beside_each_other_are_told_apart() {
    let answering = Answering::start(|_, _| true);
    let tally = answering.ask_all(&[(Pace::Rate(2000), Timed::OnTheWay), (Pace::Rate(6000), Timed::No)]);
    assert!((1..=200).contains(&tally[0].sent), "{}", tally[0].sent);
    assert!((1..=600).contains(&tally[1].sent) && tally[1].sent > tally[0].sent, "{}", tally[1].sent);
    assert_eq!([tally[0].wrong, tally[1].wrong], [0, 0]);
    assert_eq!(tally[0].latencies.len() as u64, tally[0].answered);
    assert!(tally[1].latencies.is_empty());
}

#[test]
fn time_on_the_way_is_the_servers_not_the_generators() {
    // It takes a moment over each fourth, which those behind it wait for.
    let tally = Answering::start(|number, _| {
        let began = Instant::now();
        while number % 4 == 0 && began.elapsed() < Duration::from_millis(2) {}
        true
    })
    .ask_all(&[(Pace::Rate(500), Timed::OnTheWay)])
    .remove(0);
    let slow = tally.latencies.iter().filter(|&&took| took >= 2000).count();
    assert!(slow as u64 >= tally.answered / 5 && slow > 0, "{tally:?}");
    assert!(tally.latencies.iter().all(|&took| took < 10_000_000), "the clocks are the same: {tally:?}");
}

#[test]
fn a_steady_rate_makes_up_for_a_millisecond_at_most() {
    // What is sent as answers come, by a generator on a machine that may have one core: never more than is due.
    let tally = Answering::start(|_, _| true).ask_all(&[(Pace::Steady(5000), Timed::No)]).remove(0);
    assert!((1..=500).contains(&(tally.sent + tally.skipped)), "{} and {}", tally.sent, tally.skipped);
    assert!(tally.sent > 0);
    // Nothing can be outstanding that isn't due within a millisecond: five of five thousand.
    let held = Answering::start(|number, _| number % 2 == 0).ask_all(&[(Pace::Steady(1), Timed::No)]).remove(0);
    assert!(held.sent <= 1, "{held:?}");
}

#[test]
fn a_schedule_and_what_is_due_by_it_agree() {
    for number in [0, 1, 19_999, 20_000] {
        let at = Duration::from_nanos(scheduled(number, 20_000));
        assert_eq!(due(at, 20_000), number + 1);
        assert_eq!(due(at - Duration::from_nanos(1), 20_000), number);
    }
}
