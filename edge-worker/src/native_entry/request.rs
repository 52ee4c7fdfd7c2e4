//! What the gateway tells `runtime` of a request: takes its head and who sent it, returns the text that describes it.
//! Called by `answer`.

use core::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use bailiwick_rules::steer::Client;
use hyper::Request;
use hyper::header::{HOST, HeaderMap};
use hyper::http::uri::{Authority, PathAndQuery};
use ipnet::IpNet;
use serde_json::Value;

use super::config::AddressHeader;
use super::place::{Database, client_without_database};
use crate::platform::isolate;
use crate::platform::native::http::lines_of;
use crate::runtime;

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    /// The other end of the connection, or whom the PROXY protocol names.
    pub(super) address: IpAddr,
    /// Whether it is a proxy that is believed what it says of a client.
    pub(super) is_trusted: bool,
}

/// What decides where a client is.
pub(super) struct Locator {
    /// The networks of proxies.
    pub(super) trusted: Vec<IpNet>,
    /// The header by which they name a client.
    pub(super) header: AddressHeader,
    /// The GeoIP database.
    pub(super) database: Option<std::sync::Arc<Database>>,
}

/// What only a trusted proxy may say of a client: its address, and its place as JSON with `country`, `latitude` and
/// `longitude`. They are those that workerd gets from the same proxy.
const ADDRESS: &str = "cf-connecting-ip";
const PLACE: &str = "bailiwick-cf";
const FORWARDED: &str = "x-forwarded-for";

/// A place as three lines: the country, the latitude and the longitude. Each may be empty.
type PlaceLines = [String; 3];

impl Locator {
    /// Whether an address is that of a trusted proxy.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// The client's address and place. The address is unknown if a trusted proxy doesn't name one.
    fn client(&self, headers: &HeaderMap, sender: Sender) -> (Option<String>, PlaceLines) {
        let (address, named) = match (sender.is_trusted, self.header) {
            (false, _) => (Some(sender.address.to_canonical()), None),
            // Of two values the client may have sent one, so neither counts.
            (true, AddressHeader::CfConnectingIp) => {
                let named = single(headers, ADDRESS);
                (named.and_then(|text| text.parse().ok()), named)
            }
            (true, AddressHeader::XForwardedFor) => (self.forwarded_for(headers), None),
        };
        let as_text = |address: Option<IpAddr>| address.map(|address| address.to_string());
        let said = single(headers, PLACE).filter(|_| sender.is_trusted);
        let said: Value = said.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let said = ["country", "latitude", "longitude"].map(|name| line(&said, name));
        let Some(known) = address.filter(|_| said[0].is_empty()) else {
            return (named.map(str::to_owned).or_else(|| as_text(address)), said);
        };
        let table = runtime::table();
        let table = table.as_ref().map(Rc::as_ref);
        match &self.database {
            Some(database) => {
                let client = database.client(table, known);
                (as_text(client.address), place_lines(&client))
            }
            None => (as_text(client_without_database(table, known).address), said),
        }
    }

    /// The last address of the list that no trusted proxy has. Whatever stands before it, the client may have written.
    fn forwarded_for(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let values = headers.get_all(FORWARDED).iter().rev();
        let addresses = values.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
        for text in addresses {
            let address = without_port(text.trim()).parse::<IpAddr>().ok()?.to_canonical();
            if !self.trusts(address) {
                return Some(address);
            }
        }
        None
    }
}

/// Where the database says that a client is.
fn place_lines(client: &Client) -> PlaceLines {
    let country = client.country.map(|country| country.to_string()).unwrap_or_default();
    let degrees = client.location.map(|at| [at.latitude(), at.longitude()].map(|degrees| degrees.to_string()));
    let [latitude, longitude] = degrees.unwrap_or_default();
    [country, latitude, longitude]
}

/// An address that may be followed by a port, as some proxies write it.
fn without_port(text: &str) -> &str {
    match text.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or(inner),
        None if text.matches(':').count() == 1 => text.split(':').next().unwrap_or(text),
        None => text,
    }
}

/// The value of a header that stands there once.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// A random UUID (RFC 9562 §5.4).
pub(super) fn request_id() -> String {
    let (high, low) = (isolate::random(), isolate::random());
    let (high, low) = (high & !0xf000 | 0x4000, low & (u64::MAX >> 2) | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// Describes a request as text, with one item on each line: id, method, URL, country, latitude, longitude, then the
/// name and the value of each header.
pub(super) fn described<B>(request: &Request<B>, id: &str, sender: Sender, locator: &Locator) -> String {
    let (address, [country, latitude, longitude]) = locator.client(request.headers(), sender);
    let of_target = request.uri().authority().map(Authority::as_str);
    let host = of_target.or_else(|| request.headers().get(HOST)?.to_str().ok()).unwrap_or_default();
    // `OPTIONS *` asks about the server as a whole (RFC 9112 §3.2.4).
    let path = request.uri().path_and_query().map(PathAndQuery::as_str).filter(|path| *path != "*").unwrap_or("/");
    let mut text = format!("{id}\n{}\nhttp://{host}{path}\n{country}\n{latitude}\n{longitude}\n", request.method());
    text += &lines_of(request.headers(), |name| ![ADDRESS, PLACE].contains(&name.as_str()));
    if let Some(address) = address {
        let _ = write!(text, "{ADDRESS}\n{address}\n");
    }
    text
}

/// A member of a place as one line of text. Empty if it is missing or isn't a single line.
fn line(place: &Value, name: &str) -> String {
    match &place[name] {
        Value::String(text) if !text.contains('\n') => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn locator(header: AddressHeader) -> Locator {
        Locator { trusted: vec!["10.0.0.0/8".parse().unwrap()], header, database: None }
    }

    fn client(locator: &Locator, from: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = from.parse().unwrap();
        let sender = Sender { address, is_trusted: locator.trusts(address) };
        let (address, [country, latitude, longitude]) = locator.client(request.body(()).unwrap().headers(), sender);
        format!("{} {country} {latitude} {longitude}", address.unwrap_or_else(|| "-".to_owned()))
    }

    #[test]
    fn only_a_trusted_proxy_says_who_a_client_is_and_says_it_once() {
        let locator = locator(AddressHeader::CfConnectingIp);
        let place = ("bailiwick-cf", r#"{"country":"DE","latitude":52.5,"longitude":"13.4"}"#);
        let said = [("cf-connecting-ip", "192.0.2.1"), place];
        assert_eq!(client(&locator, "10.1.2.3", &said), "192.0.2.1 DE 52.5 13.4");
        assert_eq!(client(&locator, "::ffff:10.1.2.3", &said), "192.0.2.1 DE 52.5 13.4");
        assert_eq!(client(&locator, "198.51.100.7", &said), "198.51.100.7   ");
        let twice = [said[0], ("cf-connecting-ip", "192.0.2.2"), place, place];
        assert_eq!(client(&locator, "10.1.2.3", &twice), "-   ");
        assert_eq!(client(&locator, "10.1.2.3", &[("x-forwarded-for", "192.0.2.1")]), "-   ");
    }

    #[test]
    fn of_a_list_the_last_that_is_no_proxy_counts() {
        let locator = locator(AddressHeader::XForwardedFor);
        let of = |values: &[&str]| {
            let headers: Vec<(&str, &str)> = values.iter().map(|value| (FORWARDED, *value)).collect();
            client(&locator, "10.1.2.3", &headers)
        };
        assert_eq!(of(&["192.0.2.1"]), "192.0.2.1   ");
        assert_eq!(of(&["1.1.1.1, 192.0.2.1, 10.9.9.9"]), "192.0.2.1   ", "the first is the client's own word");
        assert_eq!(of(&["1.1.1.1", "192.0.2.1:4711,10.9.9.9"]), "192.0.2.1   ");
        assert_eq!(of(&["[2001:db8::1]:443"]), "2001:db8::1   ");
        assert_eq!(of(&["2001:db8::1"]), "2001:db8::1   ");
        assert_eq!(of(&["192.0.2.1, unknown"]), "-   ", "what can't be read isn't skipped");
        assert_eq!(of(&["10.1.1.1"]), "-   ");
        assert_eq!(of(&[]), "-   ");
        assert_eq!(client(&locator, "198.51.100.7", &[(FORWARDED, "192.0.2.1")]), "198.51.100.7   ");
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        let ids: Vec<String> = (0..1_000).map(|_| request_id()).collect();
        for id in &ids {
            assert_eq!(id.len(), 36);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        }
        assert!(ids.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn a_place_is_read_line_by_line() {
        let place = json!({ "country": "DE", "latitude": 52.5, "longitude": "13.4", "odd": ["x"], "two": "a\nb" });
        let lines = ["country", "latitude", "longitude", "odd", "two", "none"].map(|name| line(&place, name));
        assert_eq!(lines, ["DE", "52.5", "13.4", "", "", ""]);
        assert_eq!(line(&Value::Null, "country"), "");
    }
}
