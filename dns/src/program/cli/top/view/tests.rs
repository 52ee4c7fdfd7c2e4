//! What stands on the screen.

use bailiwick_rules::fleet::traffic::Missing;
use bailiwick_rules::time::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::*;
use crate::program::node_status::{FenceNow, OverrideNow, RegionNow};

const EVERY: Duration = Duration::from_secs(2);

fn region(name: &str, status: Status) -> RegionNow {
    RegionNow {
        region: name.to_owned(),
        status,
        probed: status,
        since: Some(Timestamp(0)),
        why: format!("{status} by 3 of 3"),
        ..RegionNow::default()
    }
}

fn status() -> NodeStatus {
    let endpoint = RegionNow { endpoint: Some("fra-1".to_owned()), ..region("eu-frankfurt", Status::Up) };
    NodeStatus {
        node: "ns1".to_owned(),
        version: "1.2.3".to_owned(),
        now: Timestamp(3_600_000),
        revision: 12,
        regions: vec![region("eu-frankfurt", Status::Up), endpoint, region("uk-london", Status::Down)],
        fences: vec![FenceNow { service: "chat".to_owned(), fence: "eu-frankfurt".to_owned(), ..FenceNow::default() }],
        ..NodeStatus::default()
    }
}

fn answered(status: Result<NodeStatus, String>) -> Answer {
    Answer { status, nodes: None, checked: None }
}

fn press(view: &mut View, code: KeyCode) -> Go {
    view.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn drawn(view: &mut View, (width, height): (u16, u16), now: Instant) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame, now)).unwrap();
    terminal.backend().buffer().clone()
}

/// The lines of the screen, without spaces at their ends.
fn lines(view: &mut View, now: Instant) -> Vec<String> {
    let buffer = drawn(view, (100, 12), now);
    let line = |y: u16| (0..100).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..12).map(line).collect()
}

#[test]
fn the_first_screen_tells_what_is_down_and_the_worst_comes_first() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    assert_eq!(lines(&mut view, now)[0], "the node is asked");
    view.take(answered(Ok(status())), now);
    let screen = lines(&mut view, now + Duration::from_secs(1));
    assert_eq!(screen[0], "ns1 bailiwick 1.2.3, up for 1h, rules revision 12   1s ago");
    assert_eq!(screen[1], "2 regions: 1 up, 1 down");
    assert!(screen[2].starts_with(" 1 regions  2 fences "), "{screen:#?}");
    let names: Vec<&str> = screen[3..7].iter().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    assert_eq!(names, ["region", "uk-london", "eu-frankfurt", ""], "{screen:#?}");
    assert!(screen[6].starts_with("  fra-1") && screen[4].contains("down by 3 of 3"), "{screen:#?}");
    assert!(screen[11].starts_with("q quit"));
    let red = drawn(&mut view, (100, 12), now);
    assert_eq!(red[(0, 4)].fg, Color::Red);
}

#[test]
fn what_was_known_stays_while_the_node_is_silent_and_its_age_is_told() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    view.take(answered(Ok(status())), now);
    view.take(answered(Err("connection refused".to_owned())), now);
    let screen = lines(&mut view, now + Duration::from_secs(9));
    assert!(screen[0].ends_with("no answer for 9s"), "{screen:#?}");
    assert_eq!(screen[2], "connection refused");
    assert!(screen.iter().any(|line| line.starts_with("uk-london")));
    view.take(answered(Ok(status())), now + Duration::from_secs(9));
    assert!(lines(&mut view, now + Duration::from_secs(9))[2].starts_with(" 1 regions"), "it is over");
}

#[test]
fn keys_turn_tables_choose_rows_sort_and_end() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    view.take(answered(Ok(status())), now);
    for (key, expected) in [(KeyCode::Down, 1), (KeyCode::End, 2), (KeyCode::Down, 2), (KeyCode::Up, 1)] {
        assert_eq!(press(&mut view, key), Go::On);
        assert_eq!(view.chosen.selected(), Some(expected), "{key:?}");
    }
    // By name; then by status, where down comes before up.
    for (order, first) in [(Some(0), "eu-frankfurt"), (Some(1), "uk-london")] {
        press(&mut view, KeyCode::Char('s'));
        assert_eq!((view.order, view.sheet().rows[0].cells[0].as_str()), (order, first));
    }
    (0..4).for_each(|_| _ = press(&mut view, KeyCode::Char('s')));
    assert_eq!(view.order, None, "after the last column as at the begin");
    assert_eq!(press(&mut view, KeyCode::Char('2')), Go::On);
    assert_eq!((view.sheet().name, view.chosen.selected()), ("fences", Some(0)));
    press(&mut view, KeyCode::BackTab);
    assert_eq!(view.sheet().name, "regions");
    assert_eq!(press(&mut view, KeyCode::Left), Go::Ask);
    assert!(view.wants_peers(), "it goes around");
    assert_eq!(press(&mut view, KeyCode::Char('8')), Go::On, "they are asked already");
    assert!(lines(&mut view, now).iter().any(|line| line == "the node is asked"));
    assert_eq!(press(&mut view, KeyCode::Char('1')), Go::Ask, "so that they aren't any more");
    assert_eq!(press(&mut view, KeyCode::Char('q')), Go::End);
    assert_eq!(view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Go::End);
}

#[test]
fn what_is_outside_its_fence_is_told_on_the_first_screen() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    let answer = |violations: u64| {
        let checked = Some(FenceCheck { at: Timestamp(3_597_000), violations });
        Answer { checked, ..answered(Ok(status())) }
    };
    view.take(answer(0), now);
    assert_eq!(lines(&mut view, now)[2], "0 fence violations, checked 3s ago");
    view.take(answer(2), now);
    assert_eq!(lines(&mut view, now)[2], "2 fence violations, checked 3s ago");
    assert_eq!(drawn(&mut view, (100, 12), now)[(0, 2)].fg, Color::Red);
}

#[test]
fn fewer_rows_than_before_leave_the_choice_within_them() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    view.take(answered(Ok(status())), now);
    press(&mut view, KeyCode::End);
    view.take(answered(Ok(NodeStatus { regions: vec![region("a", Status::Up)], ..status() })), now);
    lines(&mut view, now);
    assert_eq!(view.chosen.selected(), Some(0));
    view.take(answered(Ok(NodeStatus { regions: Vec::new(), ..status() })), now);
    assert!(lines(&mut view, now).iter().any(|line| line == "no regions"));
}

#[test]
fn nodes_that_give_no_answer_are_told_first() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    press(&mut view, KeyCode::Char('8'));
    let asked: FleetReport = serde_json::from_value(serde_json::json!({
        "node": "ns1", "now": "2026-12-01T06:00:00Z", "mode": "peers", "stage": "rest", "writer": true,
        "revision": 12, "sha256": "", "connected": true, "lag_seconds": 0, "awaited_revision": null, "head": null,
        "refused": {}, "last_refusal": null, "peers": [] }))
    .unwrap();
    let missing = vec![Missing { peer: "https://ns2.example.com".to_owned(), why: "timed out".to_owned() }];
    let nodes = NodesReport { asked, peers: Default::default(), missing };
    view.take(Answer { status: Ok(status()), nodes: Some(Ok(nodes)), checked: None }, now);
    let rows = view.sheet().rows;
    assert_eq!((rows[0].cells[0].as_str(), rows[0].cells[6].as_str()), ("https://ns2.example.com", "timed out"));
    assert_eq!(rows[1].cells[..4], ["ns1", "rest", "peers", "12"]);
}

#[test]
fn hostile_text_moves_nothing_and_small_screens_do_no_harm() {
    let (mut view, now) = (View::new(EVERY), Instant::now());
    let reason = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}evil\n".repeat(1_000);
    let forced = OverrideNow { of: "uk-london".to_owned(), reason, ..OverrideNow::default() };
    let hostile = NodeStatus { node: "\u{1b}[31m".to_owned(), overrides: vec![forced], ..status() };
    view.take(answered(Ok(hostile)), now);
    press(&mut view, KeyCode::Char('5'));
    for size in [(100, 12), (20, 5), (1, 1), (300, 2), (3, 60)] {
        let buffer = drawn(&mut view, size, now);
        let controls = buffer.content.iter().filter(|cell| cell.symbol().contains(char::is_control));
        assert_eq!(controls.count(), 0, "{size:?}");
    }
}
