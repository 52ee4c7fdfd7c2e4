//! Tests of options in responses, and of the rate limit: padding, keepalive, cookies.

use std::sync::Mutex;

use super::*;
use crate::response::answer::identity::Identity;
use crate::testing::NOW;

const NSID: u16 = 3;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;

/// Sends a query with these options, in this context.
fn ask_in(context: &Context<'_>, transport: Transport, options: &[(u16, &[u8])]) -> (Vec<u8>, Outcome) {
    let mut out = Vec::new();
    let packet = ask_a(&[&opt(1232, options)]);
    let outcome = respond(context, &small(), &NoSteering, &packet, CLIENT, transport, &mut out);
    (out, outcome)
}

/// The data of an option of the OPT, which is the last record.
fn option(response: &[u8], code: u16) -> Option<Vec<u8>> {
    let edns = Message::from_vec(response).expect("a response").edns?;
    edns.options()
        .as_ref()
        .iter()
        .find(|(one, _)| u16::from(*one) == code)
        .map(|(_, option)| Vec::try_from(option).expect("data"))
}

fn context(settings: &Settings) -> Context<'_> {
    Context { settings, limiter: None, now: NOW }
}

#[test]
fn rfc8467_4_1_responses_are_padded_to_468_if_encrypted_and_the_client_pads() {
    let settings = Settings { identity: Identity::new(None, None, Some("ns1")), ..Settings::anonymous() };
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Quic, Transport::Https] {
        let (padded, _) = ask_in(&context(&settings), transport, &[(PADDING, &[0; 30]), (NSID, b"")]);
        assert_eq!(option(&padded, PADDING).is_some(), transport.is_encrypted(), "{transport:?}");
        assert_eq!(padded.len() == 468, transport.is_encrypted(), "{transport:?}");
        let (plain, _) = ask_in(&context(&settings), transport, &[(NSID, b"")]);
        assert_eq!(option(&plain, PADDING), None);
        assert_eq!(option(&plain, NSID), Some(b"ns1".to_vec()));
    }
}

#[test]
fn rfc7828_3_keepalive_is_sent_on_tcp_and_tls_only() {
    let settings = Settings { idle: std::time::Duration::from_secs(12), ..Settings::anonymous() };
    for (transport, reported) in [
        (Transport::Udp, false),
        (Transport::Tcp, true),
        (Transport::Tls, true),
        (Transport::Quic, false),
        (Transport::Https, false),
    ] {
        let (out, _) = ask_in(&context(&settings), transport, &[(KEEPALIVE, b"")]);
        assert_eq!(option(&out, KEEPALIVE), reported.then(|| vec![0, 120]), "{transport:?}");
    }
    let (out, _) = ask_in(&context(&settings), Transport::Tcp, &[]);
    assert_eq!(option(&out, KEEPALIVE), None);
}

/// A limiter with fixed verdicts, which counts its calls.
struct Judge(Verdict, Verdict, Mutex<(u32, u32)>);

impl Limiter for Judge {
    fn admit(&self, _: IpAddr) -> Verdict {
        self.2.lock().expect("lock").0 += 1;
        self.0
    }
    fn judge(&self, _: IpAddr, _: Class) -> Verdict {
        self.2.lock().expect("lock").1 += 1;
        self.1
    }
}

#[test]
fn a_limited_answer_is_dropped_or_slips_and_good_cookies_and_streams_are_never_limited() {
    let settings = Settings::anonymous();
    let client = &[7; 8][..];
    let (out, _) = ask_in(&context(&settings), Transport::Udp, &[(COOKIE, client)]);
    let cookie = option(&out, COOKIE).expect("a cookie");
    for (admit, judge) in [(Verdict::Drop, Verdict::Answer), (Verdict::Answer, Verdict::Drop)] {
        let limiter = Judge(admit, judge, Mutex::default());
        let limited = Context { limiter: Some(&limiter), ..context(&settings) };
        assert_eq!(ask_in(&limited, Transport::Udp, &[]), (vec![], Outcome::Dropped));
        assert_eq!(ask_in(&limited, Transport::Udp, &[(COOKIE, client)]).1, Outcome::Dropped);
        let asked = *limiter.2.lock().expect("lock");
        for (transport, options) in [(Transport::Tcp, &[][..]), (Transport::Udp, &[(COOKIE, &cookie[..])])] {
            let (out, _) = ask_in(&limited, transport, options);
            assert_eq!((low_rcode(&out), out[7]), (0, 1), "answered");
        }
        assert_eq!(*limiter.2.lock().expect("lock"), asked, "the limiter wasn't asked again");
    }
    for (admit, judge) in [(Verdict::Slip, Verdict::Answer), (Verdict::Answer, Verdict::Slip)] {
        let limiter = Judge(admit, judge, Mutex::default());
        let limited = Context { limiter: Some(&limiter), ..context(&settings) };
        let (out, outcome) = ask_in(&limited, Transport::Udp, &[]);
        assert!(matches!(outcome, Outcome::Answered { truncated: true, .. }), "{outcome:?}");
        assert_eq!((out[2] & 2, out[7]), (2, 0), "TC and no record");
        let (out, outcome) = ask_in(&limited, Transport::Udp, &[(COOKIE, client)]);
        assert!(matches!(outcome, Outcome::Answered { rcode: Rcode::BADCOOKIE, truncated: false, .. }), "{outcome:?}");
        assert_eq!(option(&out, COOKIE).map(|cookie| cookie.len()), Some(24));
    }
}

#[test]
fn a_response_without_an_opt_in_the_query_has_no_option() {
    let settings = Settings { identity: Identity::new(None, None, Some("ns1")), ..Settings::anonymous() };
    let mut out = Vec::new();
    let _ = respond(&context(&settings), &small(), &NoSteering, &ask_a(&[]), CLIENT, Transport::Tls, &mut out);
    assert!(Message::from_vec(&out).expect("a response").edns.is_none());
}
