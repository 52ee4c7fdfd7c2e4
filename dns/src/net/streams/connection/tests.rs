//! Tests of one connection over a pipe in memory: how long it lasts, and what a drain still answers. Time is simulated.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::Limits;
use super::*;

/// A message that gets no response.
const DROPPED: &[u8] = b"drop";
/// A message at which the server begins to drain.
const DRAIN: &[u8] = b"stop";
/// The limit of idle connections and of slow messages.
const IDLE: Duration = Duration::from_secs(10);

/// Answers each message with the same octets.
struct Echo(watch::Sender<bool>);

impl Respond for Echo {
    fn respond(&self, packet: &[u8], _: IpAddr, _: Transport, out: &mut Vec<u8>) -> Outcome {
        out.clear();
        if packet == DROPPED {
            return Outcome::Dropped;
        }
        if packet == DRAIN {
            self.0.send_replace(true);
        }
        out.extend_from_slice(packet);
        Outcome::positive()
    }
}

/// A connection that is served, and the client's end of it.
struct Served {
    client: DuplexStream,
    responder: Arc<Echo>,
    task: JoinHandle<()>,
}

impl Served {
    /// `buffer` is how many octets fit into the pipe in each direction.
    fn new(buffer: usize) -> Self {
        let (client, server) = tokio::io::duplex(buffer);
        let (drain, stop) = watch::channel(false);
        let responder = Arc::new(Echo(drain));
        let gate = Gate::new(Limits { idle: IDLE, ..Limits::default() });
        let shared = Shared { responder: Arc::clone(&responder), gate, yielded: stop.clone(), stop };
        let address = "192.0.2.1:53".parse().unwrap();
        let task = tokio::spawn(async move { serve(server, address, Transport::Tcp, &shared).await });
        Self { client, responder, task }
    }

    async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.client.write_all(octets).await
    }

    /// The next response.
    async fn response(&mut self) -> io::Result<Vec<u8>> {
        let length = self.client.read_u16().await?;
        let mut response = vec![0; usize::from(length)];
        self.client.read_exact(&mut response).await?;
        Ok(response)
    }

    fn drain(&self) {
        self.responder.0.send_replace(true);
    }

    /// How long the connection lasts from now on, though the client stays.
    async fn rest(self) -> Duration {
        let begun = Instant::now();
        self.task.await.unwrap();
        begun.elapsed()
    }
}

/// A message after its length.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_octet_by_octet_does_not_postpone_the_end_of_a_drain() {
    let mut served = Served::new(1024);
    let message = framed(&[7; 100]);
    served.send(&message[..1]).await.unwrap();
    pass(1).await;
    served.drain();
    let drained = Instant::now();
    let mut sent = 1;
    while !served.task.is_finished() {
        let _ = served.send(&message[sent..=sent]).await;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(90)).await;
    }
    let lasted = drained.elapsed();
    assert!((DRAIN_TIMEOUT..DRAIN_TIMEOUT + Duration::from_millis(200)).contains(&lasted), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_began_before_a_drain_is_answered_if_its_rest_comes_in_time() {
    let mut served = Served::new(1024);
    let message = framed(b"slow");
    served.send(&message[..3]).await.unwrap();
    pass(1).await;
    served.drain();
    tokio::time::sleep(DRAIN_TIMEOUT / 2).await;
    served.send(&message[3..]).await.unwrap();
    assert_eq!(served.response().await.unwrap(), b"slow");
    assert!(served.rest().await < DRAIN_TIMEOUT / 2, "then nothing keeps the connection");
}

#[tokio::test(start_paused = true)]
async fn queries_that_arrive_while_others_are_answered_are_answered_before_a_drain() {
    let first = framed(DRAIN);
    // The second query gets into the pipe only after the first is read.
    let mut served = Served::new(first.len());
    served.send(&[first, framed(b"late")].concat()).await.unwrap();
    assert_eq!(served.response().await.unwrap(), DRAIN);
    assert_eq!(served.response().await.unwrap(), b"late");
    assert!(served.response().await.is_err(), "the connection ends");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_though_a_client_never_stops_asking() {
    let mut served = Served::new(1024);
    served.drain();
    let drained = Instant::now();
    let is_answered =
        async |served: &mut Served| served.send(&framed(b"more")).await.is_ok() && served.response().await.is_ok();
    while drained.elapsed() < DRAIN_TIMEOUT * 2 && is_answered(&mut served).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let lasted = drained.elapsed();
    assert!((DRAIN_TIMEOUT..DRAIN_TIMEOUT * 2).contains(&lasted), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_without_a_response_leave_a_connection_idle() {
    let mut served = Served::new(1024);
    for _ in 0..3 {
        pass(3).await;
        served.send(&framed(DROPPED)).await.unwrap();
    }
    assert_eq!(served.rest().await, IDLE - Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn each_message_has_its_own_time_to_arrive_even_after_one_without_a_response() {
    let mut served = Served::new(1024);
    let (dropped, message) = (framed(DROPPED), framed(b"next"));
    served.send(&dropped[..1]).await.unwrap();
    pass(9).await;
    served.send(&[&dropped[1..], &message[..1]].concat()).await.unwrap();
    pass(9).await;
    served.send(&message[1..]).await.unwrap();
    assert_eq!(served.response().await.unwrap(), b"next");
    served.send(&message[..1]).await.unwrap();
    assert_eq!(served.rest().await, IDLE, "no message may take longer");
}
