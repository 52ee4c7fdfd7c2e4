//! The generator for DNS over QUIC (RFC 9250). Takes a server's address, its certificate and a workload; returns how
//! many queries were answered. Called by `streams`, since no generator of Debian speaks QUIC.
//!
//! Each query has a stream of its own, and every answer is checked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, NoneTokenStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::streams::{Counted, OUTSTANDING};
use crate::workload::{Draw, Workload};

/// The protocol's name in the TLS handshake (RFC 9250 §4.1.1).
const ALPN: &[u8] = b"doq";
/// How many connections there are at once.
pub(crate) const CONNECTIONS: usize = 20;
/// How many queries are outstanding on each connection: 5. Knot 3.4.6 answers nothing more on a connection on which 11
/// queries arrived in one packet.
const TASKS_PER_CONNECTION: usize = OUTSTANDING / CONNECTIONS;
/// After how many queries a connection is replaced by a new one. Knot 3.4.6 allows 1,024 streams on a
/// connection in total.
pub(crate) const QUERIES_PER_CONNECTION: usize = 1000;
/// How many queries each task asks on one connection.
const QUERIES_PER_TASK: usize = QUERIES_PER_CONNECTION / TASKS_PER_CONNECTION;
/// A query counts as lost if it isn't answered within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer with its length before it, in octets.
const MAX_ANSWER: usize = 2 + 65_535;
/// How many answers to each task are decoded and compared in full, which is slow. Of the others the header and the
/// address are compared.
const DECODED: usize = 1;

/// Asks for as long as `length`. The handshakes of new connections are part of that time.
///
/// # Errors
/// If a connection can't be made, or an answer is wrong.
pub(crate) fn run(
    server: SocketAddr,
    certificate: &Path,
    workload: &Arc<Workload>,
    length: Duration,
) -> Result<Counted, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the async runtime can't start: {error}"))?;
    let config = client_config(certificate)?;
    runtime.block_on(async {
        let began = Instant::now();
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let client = Client { server, config: config.clone(), workload: Arc::clone(workload) };
                tokio::spawn(client.ask_until(began + length, number))
            })
            .collect();
        let (mut completed, mut lost, mut endpoints) = (0, 0, Vec::new());
        for client in clients {
            let (endpoint, answered, unanswered) = client.await.map_err(|error| error.to_string())??;
            completed += answered;
            lost += unanswered;
            endpoints.push(endpoint);
        }
        let seconds = began.elapsed().as_secs_f64();
        for endpoint in endpoints {
            endpoint.wait_idle().await;
        }
        let completed = f64::from(completed);
        Ok(Counted { rate: completed / seconds, completed, lost })
    })
}

/// A client, which has one connection after the other.
struct Client {
    server: SocketAddr,
    config: ClientConfig,
    workload: Arc<Workload>,
}

impl Client {
    /// Asks until `end`. `number` seeds the client's queries, so that clients ask different ones. Returns the endpoint,
    /// over which the last close is still to be sent, and how many queries were answered and how many weren't.
    async fn ask_until(self, end: Instant, number: usize) -> Result<(Endpoint, u32, u64), String> {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())
            .map_err(|error| format!("there is no UDP socket for QUIC: {error}"))?;
        let (mut answered, mut lost, mut seed) = (0, 0, number as u64 + 1);
        while Instant::now() < end {
            let connection = self.connect(&endpoint).await?;
            let tasks: Vec<_> = (0..TASKS_PER_CONNECTION)
                .map(|_| {
                    seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    tokio::spawn(ask_many(end, connection.clone(), Arc::clone(&self.workload), Draw::new(seed)))
                })
                .collect();
            for task in tasks {
                let (more_answered, more_lost) = task.await.map_err(|error| error.to_string())??;
                answered += more_answered;
                lost += more_lost;
            }
            // DOQ_NO_ERROR (RFC 9250 §4.3).
            connection.close(0u32.into(), b"");
        }
        Ok((endpoint, answered, lost))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, String> {
        let connecting = endpoint.connect_with(self.config.clone(), self.server, "localhost");
        let connecting = connecting.map_err(|error| error.to_string())?;
        connecting.await.map_err(|error| format!("no QUIC connection to {}: {error}", self.server))
    }
}

/// The settings of a client that trusts this certificate alone.
fn client_config(certificate: &Path) -> Result<ClientConfig, String> {
    let fault = |error: &dyn std::error::Error| format!("{}: {error}", certificate.display());
    let mut roots = RootCertStore::empty();
    let own = CertificateDer::from_pem_file(certificate).map_err(|error| fault(&error))?;
    roots.add(own).map_err(|error| fault(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut tls = tls.map_err(|error| fault(&error))?.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(|error| fault(&error))?));
    // No connection presents the token that an earlier one was given (RFC 9000 §8.1.3). Knot 3.4.6 takes such a token
    // for one of a Retry: it leaves out the original connection id, and a client must close (RFC 9000 §7.3).
    config.token_store(Arc::new(NoneTokenStore));
    Ok(config)
}

/// Asks [`QUERIES_PER_TASK`] queries, one after the other, but none after `end`. Returns how many were answered and how
/// many were not.
///
/// # Errors
/// If an answer is wrong.
async fn ask_many(
    end: Instant,
    connection: Connection,
    workload: Arc<Workload>,
    mut draw: Draw,
) -> Result<(u32, u64), String> {
    let mut query = workload.template().to_vec();
    let (mut answered, mut lost) = (0, 0);
    for _ in 0..QUERIES_PER_TASK {
        if Instant::now() >= end {
            break;
        }
        // The id is 0 (RFC 9250 §4.2.1).
        let address = workload.write(0, &mut draw, &mut query);
        let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_TIMEOUT, ask(&connection, &query)).await else {
            lost += 1;
            // A connection that is closed answers nothing more.
            if connection.close_reason().is_some() {
                break;
            }
            continue;
        };
        let is_right = match (answered as usize) < DECODED {
            true => is_right_decoded(&answer, &workload, address),
            false => is_right(&answer, &workload, address),
        };
        if !is_right {
            return Err(format!("a wrong answer by QUIC: wanted {address:?}, got {answer:02x?}"));
        }
        answered += 1;
    }
    Ok((answered, lost))
}

/// Sends a query on a stream of its own. Returns the answer with its length before it.
async fn ask(connection: &Connection, query: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let length = u16::try_from(query.len())?;
    send.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    send.finish()?;
    Ok(receive.read_to_end(MAX_ANSWER).await?)
}

/// Whether an answer has the right length, header and, if one is wanted, address.
fn is_right(answer: &[u8], workload: &Workload, address: Option<Ipv4Addr>) -> bool {
    let Some((length, message)) = answer.split_first_chunk::<2>() else { return false };
    let Some((header, rest)) = message.split_first_chunk::<12>() else { return false };
    let [id_high, id_low, flags, code, .., answers_high, answers_low, _, _, _, _] = *header;
    usize::from(u16::from_be_bytes(*length)) == message.len()
        && [id_high, id_low] == [0, 0]
        // QR and AA.
        && flags & 0x84 == 0x84
        && code & 15 == workload.rcode
        && u16::from_be_bytes([answers_high, answers_low]) == workload.records
        // The length of the data, 4, and the address.
        && address.is_none_or(|address| {
            let [a, b, c, d] = address.octets();
            rest.windows(6).any(|six| six == [0, 4, a, b, c, d])
        })
}

/// Whether the decoded answer is right.
fn is_right_decoded(answer: &[u8], workload: &Workload, address: Option<Ipv4Addr>) -> bool {
    let Some(Ok(message)) = answer.get(2..).map(Message::from_vec) else { return false };
    let addresses = message.answers.iter().filter_map(|record| match record.data {
        RData::A(a) => Some(a.0),
        _ => None,
    });
    is_right(answer, workload, address) && message.edns.is_some() && message.queries.len() == 1 && addresses.eq(address)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, MessageType};
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    use super::*;

    /// What the two checks say of a right answer that `lie` changed.
    fn checked(lie: fn(&mut Message)) -> [bool; 2] {
        let workload = Workload::of_static(1);
        let mut query = workload.template().to_vec();
        let address = workload.write(0, &mut Draw::new(1), &mut query);
        let mut message = Message::from_vec(&query).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.authoritative = true;
        message.edns = Some(Edns::new());
        let name = message.queries[0].name().clone();
        message.answers.push(Record::from_rdata(name, 3600, RData::A(A(address.unwrap()))));
        lie(&mut message);
        let octets = message.to_vec().unwrap();
        let answer = [&u16::try_from(octets.len()).unwrap().to_be_bytes()[..], &octets].concat();
        [is_right(&answer, &workload, address), is_right_decoded(&answer, &workload, address)]
    }

    #[test]
    fn right_answers_pass_and_each_lie_is_seen() {
        assert_eq!(checked(|_| {}), [true, true]);
        let lies: [fn(&mut Message); 5] = [
            |message| message.metadata.id = 1,
            |message| message.metadata.authoritative = false,
            |message| message.metadata.message_type = MessageType::Query,
            |message| message.answers.clear(),
            |message| message.answers[0].data = RData::A(A(Ipv4Addr::new(192, 0, 2, 99))),
        ];
        for lie in lies {
            assert_eq!(checked(lie), [false, false]);
        }
        assert_eq!(checked(|message| message.edns = None), [true, false], "only the slow check sees it");
        assert!(!is_right(&[0, 1, 0], &Workload::of_static(1), None), "it is too short");
    }
}
