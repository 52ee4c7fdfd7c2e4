//! The limit of what is possible: sends every datagram back with the QR bit set, by this project's own batched loop. No
//! server that has to find an answer can cost less over the same calls. It runs as a process of its own (`bench-dns
//! --echo`), so that it is measured as the others are.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::sync::Arc;

use bailiwick_dns::net::listeners::{Addresses, Certificates, Sockets};
use bailiwick_dns::net::streams::{Gate, Limits};
use bailiwick_dns::response::answer::{Origin, Rcode};
use bailiwick_dns::response::respond::{Datagram, Datagrams, Respond};
use bailiwick_dns::response::wire::{Class, Outcome, Transport};
use bailiwick_host::system::tasks::Tasks;

/// Gives back what it gets.
struct Echo;

impl Respond for Echo {
    fn respond(&self, packet: &[u8], _: IpAddr, _: Transport, out: &mut Vec<u8>) -> Outcome {
        if !echo(packet, out) {
            return Outcome::Dropped;
        }
        let (rcode, class) = (Rcode::NOERROR, Class::Positive);
        Outcome::Answered {
            rcode,
            qtype: None,
            truncated: false,
            service: None,
            region: None,
            origin: Origin::default(),
            class,
            keepable: false,
        }
    }

    fn datagrams(self: Arc<Self>) -> Box<dyn Datagrams> {
        Box::new(Echo)
    }
}

impl Datagrams for Echo {
    fn begin(&mut self) {}

    fn respond(&mut self, batch: &mut [Datagram<'_>]) {
        for Datagram { packet, response, .. } in batch {
            echo(packet, response);
        }
    }
}

fn echo(packet: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    out.extend_from_slice(packet);
    match out.get_mut(2) {
        Some(flags) => *flags |= 0x80,
        None => return false,
    }
    true
}

/// Echoes at an address until this process is ended.
///
/// # Errors
/// When the address is taken or the system refuses threads.
pub(crate) fn run(address: SocketAddr, threads: NonZero<usize>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| format!("the system gives no threads: {error}"))?;
    runtime.block_on(async {
        let addresses = Addresses { dns: vec![address], threads: Some(threads), ..Addresses::default() };
        let sockets = Sockets::bind(&addresses).map_err(|errors| format!("{}", errors[0]))?;
        let served =
            sockets.serve(&Arc::new(Echo), &Gate::new(Limits::default()), &Certificates::default(), &Tasks::default());
        let _listeners = served.map_err(|error| format!("the echo can't be served: {error}"))?;
        std::future::pending().await
    })
}
