//! Events that are put into an inbox and taken from it.

use super::*;

#[test]
fn a_chunk_is_asked_for_until_the_clients_body_has_begun_and_if_the_rest_may_be_piped() {
    let mut inbox = Inbox::default();
    let mut read = |begun, on_demand| {
        (inbox.body_begun, inbox.on_demand) = (begun, on_demand);
        inbox.put(Notice::Chunk, 1, Some(vec![7]));
        assert!(!inbox.wants_read(), "a chunk is there");
        inbox.take();
        inbox.wants_read()
    };
    assert_eq!(
        [(false, false), (false, true), (true, true)].map(|(begun, on_demand)| read(begun, on_demand)),
        [true; 3]
    );
    assert!(!read(true, false), "each chunk comes without being asked for");
    inbox.put(Notice::Eof, 1, None);
    inbox.take();
    assert!(inbox.wants_read(), "nothing comes without being asked for after the end");
}

#[test]
fn a_write_that_fails_means_that_the_client_has_gone() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::WriteFailed, 0, None);
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::ClientGone)));
}

#[test]
fn bytes_go_before_a_timer_and_a_client_stays_gone() {
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
fn a_timer_that_ran_out_over_a_slow_client_is_put_off_once() {
    let mut inbox = Inbox::default();
    assert_eq!(inbox.grace(), None);
    inbox.put(Notice::Timer, 0, None);
    inbox.put(Notice::Written, 0, None);
    assert_eq!((inbox.grace(), inbox.take()), (Some(AFTER_A_SLOW_CLIENT_MS), None));
    inbox.put(Notice::Timer, 0, None);
    assert_eq!(inbox.take(), Some(Arrival::Timer), "the endpoint is silent still");
}

#[test]
fn a_body_goes_before_whatever_else_happened() {
    let mut inbox = Inbox::default();
    assert_eq!(inbox.take_body(), None);
    inbox.put(Notice::Timer, 0, None);
    inbox.put(Notice::RequestBody, 0, Some(vec![7]));
    assert_eq!(inbox.take_body(), Some(Some(Some(vec![7]))));
    assert_eq!((inbox.take_body(), inbox.take_body()), (Some(None), None), "then the timer, once");
    inbox.put(Notice::RequestFailed, 0, None);
    assert_eq!(inbox.take_body(), Some(Some(None)));
    inbox.put(Notice::ClientGone, 0, None);
    assert_eq!(inbox.take_body(), Some(Some(None)), "nobody is left to send one");
}

#[test]
fn an_answer_that_came_whole_is_a_chunk_and_its_end() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::LastChunk, 1, Some(vec![7]));
    assert_eq!(inbox.take(), Some(Arrival::Event(Event::Chunk { attempt: 1, bytes: vec![7] })));
    assert_eq!((inbox.take(), inbox.take()), (Some(Arrival::Event(Event::Eof { attempt: 1 })), None));
}

#[test]
fn an_endpoints_status_comes_with_its_headers() {
    let mut inbox = Inbox::default();
    inbox.put(Notice::Headers, 2, Some(b"200\ncontent-type\napplication/json\n".to_vec()));
    let headers = [("content-type", "application/json")].into_iter().collect();
    assert_eq!(inbox.take(), Some(Arrival::Headers { attempt: 2, status: 200, headers }));
}
