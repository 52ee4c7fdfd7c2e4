//! Checks a server's answers. Takes a workload, asks some of its queries one by one, returns the first wrong answer.
//! Called by `main` before anything is measured, because a wrong answer may well be a cheap one.

use std::net::SocketAddr;

use bailiwick_tests::dns::exchange;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use crate::workload::{Draw, Workload};

/// How many answers are looked at.
pub(crate) const SAMPLE: usize = 300;

/// Asks, and tells the first answer that isn't right.
///
/// # Errors
/// That answer, with what it should have been.
pub(crate) fn check(server: SocketAddr, workload: &Workload, draw: &mut Draw) -> Result<(), String> {
    let mut packet = workload.template().to_vec();
    for number in 0..SAMPLE {
        let id = u16::try_from(number).unwrap_or_default() ^ 0xa5a5;
        let address = workload.write(id, draw, &mut packet);
        let fault = |what: String| {
            let asked = Message::from_vec(&packet).map(|message| message.to_string()).unwrap_or_default();
            format!("answer {} of {} is wrong: {what}; asked: {asked}", number + 1, workload.kind.name())
        };
        let answer = exchange(server, &packet).ok_or_else(|| fault("none within ten seconds".to_owned()))?;
        let message = Message::from_vec(&answer).map_err(|error| fault(format!("malformed: {error}")))?;
        let addresses: Vec<String> = message
            .answers
            .iter()
            .filter(|record| record.record_type() == RecordType::A)
            .map(|record| record.data.to_string())
            .collect();
        let wanted: Vec<String> = address.iter().map(ToString::to_string).collect();
        let has_soa = message.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
        let right = message.metadata.id == id
            && message.metadata.authoritative
            && message.queries.len() == 1
            && u16::from(message.metadata.response_code) == u16::from(workload.rcode)
            && message.edns.is_some()
            && addresses == wanted
            && message.answers.len() == usize::from(workload.records)
            // RFC 2308 §3: the SOA tells for how long a name isn't there.
            && (workload.rcode == 0 || has_soa);
        if !right {
            return Err(fault(format!("wanted {wanted:?} with code {} and EDNS, got {message}", workload.rcode)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use hickory_proto::op::{MessageType, ResponseCode};
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record};

    use super::*;
    use crate::world::static_address;

    /// What [`check`] says of a server that answers as the zone says, but for what `lie` changes.
    fn checked(lie: fn(&mut Message)) -> Result<(), String> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                // One octet: nobody asks any more.
                let Ok(mut message) = Message::from_vec(&buffer[..length]) else { return };
                message.metadata.message_type = MessageType::Response;
                message.metadata.authoritative = true;
                let name = message.queries[0].name().clone();
                message.answers.push(Record::from_rdata(name, 3600, RData::A(A(static_address(0)))));
                lie(&mut message);
                socket.send_to(&message.to_vec().unwrap(), from).unwrap();
            }
        });
        let reported = check(server, &Workload::of_static(1), &mut Draw::new(1));
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0], server).unwrap();
        answering.join().unwrap();
        reported
    }

    #[test]
    fn right_answers_pass_and_each_lie_is_seen() {
        assert_eq!(checked(|_| {}), Ok(()));
        let lies: [fn(&mut Message); 6] = [
            |message| message.metadata.id ^= 1,
            |message| message.metadata.authoritative = false,
            |message| message.metadata.response_code = ResponseCode::NXDomain,
            |message| message.edns = None,
            |message| message.answers[0].data = RData::A(A(Ipv4Addr::new(10, 0, 0, 1))),
            |message| message.answers.clear(),
        ];
        for lie in lies {
            let reported = checked(lie).expect_err("a lie");
            assert!(reported.starts_with("answer 1 of static is wrong: wanted [\"10.0.0.0\"]"), "{reported}");
        }
    }
}
