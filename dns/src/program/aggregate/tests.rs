//! Which node sends, who is warned, and how much waits.

use bailiwick_rules::id::ServiceId;
use bailiwick_rules::observe::{Cell, CellKey};

use super::*;

#[test]
fn one_node_of_a_fleet_sends() {
    let fleet = |mode, writer, sends_aggregate, peers: &[&str]| Fleet {
        mode,
        writer,
        sends_aggregate,
        peers: peers.iter().map(ToString::to_string).collect(),
        ..Fleet::default()
    };
    assert_eq!(Turn::of(&fleet(Mode::Files, false, None, &[])), Turn::Always);
    assert_eq!(Turn::of(&fleet(Mode::Files, false, None, &["https://ns2"])), Turn::Never);
    assert_eq!(Turn::of(&fleet(Mode::Files, false, Some(true), &["https://ns2"])), Turn::Always);
    assert_eq!(Turn::of(&fleet(Mode::Peers, true, None, &["https://ns2"])), Turn::Always);
    assert_eq!(Turn::of(&fleet(Mode::Peers, true, Some(false), &["https://ns2"])), Turn::Never);
    assert_eq!(Turn::of(&fleet(Mode::Nats, false, None, &[])), Turn::Claimed);
    assert_eq!(Turn::of(&fleet(Mode::Nats, false, Some(true), &[])), Turn::Claimed);
}

#[test]
fn whoever_sends_beside_the_writer_is_warned() {
    let fleet = |mode, writer, sends_aggregate| Fleet { mode, writer, sends_aggregate, ..Fleet::default() };
    assert!(warning(&fleet(Mode::Peers, false, Some(true))).is_some());
    for none in [
        fleet(Mode::Peers, true, Some(true)),
        fleet(Mode::Peers, false, None),
        fleet(Mode::Nats, false, Some(true)),
        fleet(Mode::Files, false, Some(true)),
    ] {
        assert_eq!(warning(&none), None, "{none:?}");
    }
}

#[test]
fn intervals_that_wait_are_bounded_in_number_and_in_size() {
    let window = |number, cells: usize| {
        let mut window = Window::default();
        window.number = number;
        for nth in 0..cells {
            let key = CellKey {
                service: ServiceId::parse("chat").unwrap(),
                region: None,
                clients: format!("c{nth}"),
                model: None,
            };
            let mut cell = Cell::default();
            cell.requests[0] = 2;
            window.cells.insert(key, cell);
        }
        window
    };
    let dropped = |waiting: &mut VecDeque<Window>| drop_oldest(waiting).iter().map(Window::count).sum::<u64>();
    let left = |waiting: &VecDeque<Window>| waiting.iter().map(|window| window.number).collect::<Vec<_>>();
    let mut waiting: VecDeque<Window> = (0..20).map(|number| window(number, 1)).collect();
    assert_eq!((dropped(&mut waiting), left(&waiting)), (8, (4..20).collect()));
    let mut waiting: VecDeque<Window> = [3, MAX_CELLS - 10, 10].map(|cells| window(0, cells)).into();
    assert_eq!((dropped(&mut waiting), waiting.len()), (6, 2));
    waiting.push_back(window(7, MAX_CELLS));
    assert_eq!((dropped(&mut waiting), left(&waiting)), (2 * MAX_CELLS as u64, vec![7]));
}
