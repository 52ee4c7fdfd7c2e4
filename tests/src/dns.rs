//! A DNS client by hickory-proto: an independent reader of what the server writes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, Record, RecordType};

/// A question to be asked.
#[derive(Clone, Debug)]
pub struct Question {
    name: String,
    kind: RecordType,
    subnet: Option<(IpAddr, u8)>,
    payload: Option<u16>,
}

/// A question of a name and a type (`"A"`), with EDNS at 1,232 bytes.
///
/// # Panics
/// If the type is none.
#[must_use]
pub fn question(name: &str, kind: &str) -> Question {
    let kind = RecordType::from_str(kind).expect("a record type");
    Question { name: name.to_owned(), kind, subnet: None, payload: Some(1232) }
}

impl Question {
    /// On behalf of a client: EDNS Client Subnet with /24 or /56.
    ///
    /// # Panics
    /// If `address` is none.
    #[must_use]
    pub fn from(self, address: &str) -> Self {
        let address: IpAddr = address.parse().expect("an address");
        self.from_prefix(address, if address.is_ipv4() { 24 } else { 56 })
    }

    /// On behalf of a client with a source prefix of any length.
    #[must_use]
    pub fn from_prefix(mut self, address: IpAddr, length: u8) -> Self {
        self.subnet = Some((address, length));
        self
    }

    /// Without EDNS.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.payload = None;
        self
    }

    /// With another payload size.
    #[must_use]
    pub fn payload(mut self, bytes: u16) -> Self {
        self.payload = Some(bytes);
        self
    }

    /// The message in wire format.
    ///
    /// # Panics
    /// If the name is none.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut message = Message::query();
        // The case of the name is kept, for 0x20.
        let name = Name::from_str(&self.name).expect("a name");
        message.add_query(Query::query(name, self.kind));
        if let Some(payload) = self.payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            if let Some((address, length)) = self.subnet {
                edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new(address, length, 0)));
            }
            message.set_edns(edns);
        }
        message.to_vec().expect("a message")
    }

    /// Asks by UDP.
    ///
    /// # Panics
    /// If no answer came within ten seconds.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, server: SocketAddr) -> Reply {
        let query = self.to_wire();
        let answer = exchange(server, &query).expect("an answer by UDP");
        assert_eq!(answer[..2], query[..2], "the id is echoed");
        Reply::read(&answer)
    }

    /// Asks by TCP.
    ///
    /// # Panics
    /// If no answer came.
    #[must_use]
    #[track_caller]
    pub fn ask_by_tcp(&self, server: SocketAddr) -> Reply {
        let query = self.to_wire();
        let mut stream = TcpStream::connect(server).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let length = u16::try_from(query.len()).expect("a small query").to_be_bytes();
        stream.write_all(&[&length[..], &query].concat()).expect("sent");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).expect("an answer");
        Reply::read(&answer)
    }
}

/// Sends one datagram and waits up to ten seconds for one; `None` if none came.
///
/// # Panics
/// If there is no socket to be had.
#[must_use]
pub fn exchange(server: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    exchange_within(server, packet, Duration::from_secs(10))
}

/// [`exchange`] with another patience.
///
/// # Panics
/// If there is no socket to be had.
#[must_use]
pub fn exchange_within(server: SocketAddr, packet: &[u8], patience: Duration) -> Option<Vec<u8>> {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.connect(server).expect("a route");
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket.send(packet).ok()?;
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

/// An answer, decoded.
#[derive(Clone, Debug)]
pub struct Reply {
    /// As hickory-proto reads it.
    pub message: Message,
    /// How many bytes it had.
    pub length: usize,
}

impl Reply {
    /// Decodes a message.
    ///
    /// # Panics
    /// If it is malformed.
    #[must_use]
    #[track_caller]
    pub fn read(bytes: &[u8]) -> Self {
        let message =
            Message::from_vec(bytes).unwrap_or_else(|error| panic!("malformed answer: {error}: {bytes:02x?}"));
        Self { message, length: bytes.len() }
    }

    /// The response code.
    #[must_use]
    pub fn rcode(&self) -> ResponseCode {
        self.message.metadata.response_code
    }

    /// The answer section, a line per record: owner, TTL left out, type, data.
    #[must_use]
    pub fn answers(&self) -> Vec<String> {
        lines(&self.message.answers)
    }

    /// The authority section.
    #[must_use]
    pub fn authority(&self) -> Vec<String> {
        lines(&self.message.authorities)
    }

    /// The additional section without OPT.
    #[must_use]
    pub fn additional(&self) -> Vec<String> {
        lines(&self.message.additionals)
    }

    /// The data of the answer section.
    #[must_use]
    pub fn data(&self) -> Vec<String> {
        let mut data: Vec<String> = self.message.answers.iter().map(|record| record.data.to_string()).collect();
        data.sort();
        data
    }

    /// The TTL of the first answer.
    #[must_use]
    pub fn ttl(&self) -> Option<u32> {
        self.message.answers.first().map(|record| record.ttl)
    }

    /// The scope of the Client Subnet option.
    #[must_use]
    pub fn scope(&self) -> Option<u8> {
        match self.message.edns.as_ref()?.option(EdnsCode::Subnet)? {
            EdnsOption::Subnet(subnet) => Some(subnet.scope_prefix()),
            _ => None,
        }
    }
}

fn lines(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| format!("{} {} {}", record.name, record.record_type(), record.data)).collect()
}
