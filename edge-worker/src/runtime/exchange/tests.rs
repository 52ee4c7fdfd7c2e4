//! Tests of the inbox: events are put into it and taken from it.

use super::*;

#[test]
fn a_chunk_is_requested_until_the_clients_body_begins_or_if_the_rest_may_be_piped() {
    let mut inbox = Inbox::default();
    let mut read = |begun, on_demand| {
        (inbox.body_begun, inbox.on_demand) = (begun, on_demand);
        inbox.put(Notice::Chunk, 1, Some(vec![7]));
        assert!(!inbox.wants_read(), "a chunk has arrived");
        inbox.take();
        inbox.wants_read()
    };
    assert_eq!(
        [(false, false), (false, true), (true, true)].map(|(begun, on_demand)| read(begun, on_demand)),
        [true; 3]
    );
    assert!(!read(true, false), "the platform reports each chunk without being asked");
    inbox.put(Notice::Eof, 1, None);
    inbox.take();
    assert!(inbox.wants_read(), "after the end, the platform reports only if it is asked");
}

#[test]
fn a_write_that_fails_means_that_the_client_has_gone() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::WriteFailed, 0, None);
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::ClientGone)));
}

#[test]
fn bytes_go_before_the_timer_and_a_client_that_left_stays_away() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::Timer, 0, None);
    inbox.put(Notice::ClientGone, 0, None);
    inbox.put(Notice::Chunk, 1, Some(vec![7]));
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::Chunk { attempt: 1, bytes: vec![7] })));
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::ClientGone)));
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::ClientGone)));
    inbox.gone = false;
    assert_eq!((inbox.take(), inbox.take()), (Some(Arrival::Timer), None));
}

#[test]
fn a_timer_that_fires_because_of_a_slow_client_is_extended_once() {
    let mut inbox = Inbox::default();
    assert_eq!(inbox.grace(), None);
    inbox.put(Notice::Timer, 0, None);
    inbox.put(Notice::Written, 0, None);
    assert_eq!((inbox.grace(), inbox.take()), (Some(AFTER_A_SLOW_CLIENT_MS), None));
    inbox.put(Notice::Timer, 0, None);
    assert_eq!(inbox.take(), Some(Arrival::Timer), "the endpoint is still silent");
}

#[test]
fn the_clients_body_goes_before_other_events() {
    let mut inbox = Inbox::default();
    assert_eq!(inbox.take_body(), None);
    inbox.put(Notice::Timer, 0, None);
    inbox.put(Notice::RequestBody, 0, Some(vec![7]));
    assert_eq!(inbox.take_body(), Some(Some(Some(vec![7]))));
    assert_eq!((inbox.take_body(), inbox.take_body()), (Some(None), None), "after the body comes the timer, once");
    inbox.put(Notice::RequestFailed, 0, None);
    assert_eq!(inbox.take_body(), Some(Some(None)));
    inbox.put(Notice::ClientGone, 0, None);
    assert_eq!(inbox.take_body(), Some(Some(None)), "a client that left sends no body");
}

#[test]
fn a_last_chunk_is_a_chunk_and_the_end() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::LastChunk, 1, Some(vec![7]));
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::Chunk { attempt: 1, bytes: vec![7] })));
    assert_eq!((inbox.take(), inbox.take()), (Some(Arrival::Event(Event::Eof { attempt: 1 })), None));
}

#[test]
fn the_status_of_an_endpoint_arrives_with_the_headers() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::Headers, 2, Some(b"200\ncontent-type\napplication/json\n".to_vec()));
    let headers = [("content-type", "application/json")].into_iter().collect();
    assert_eq!(inbox.take(), Some(Arrival::Headers { attempt: 2, status: 200, headers }));
}
