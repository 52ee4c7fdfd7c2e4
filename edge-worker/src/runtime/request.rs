//! A client's request. Takes its body and its description as one text; returns the parts of that
//! text. `runtime` makes a [`ClientRequest`] for each request; `serve` and its helpers read it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::decide::headers::Headers;
use crate::platform::{ClientBody, RawExchange};
use crate::runtime::exchange::{Inbox, Pieces};

/// A client's request without its body, which may still be arriving.
pub(crate) struct ClientRequest {
    body: ClientBody,
    exchange: RawExchange,
    inbox: Rc<RefCell<Inbox>>,
    /// The Worker's id for the request, a random UUID.
    pub(crate) id: String,
    /// The method.
    pub(crate) method: String,
    /// The parts of the URL, as the client wrote it.
    pub(crate) address: Address,
    /// `country`, `latitude` and `longitude` of `request.cf`, each if present.
    pub(crate) place: [Option<String>; 3],
    /// All headers, with names in lower case. The values of a repeated header are joined by a comma.
    pub(crate) headers: Headers,
}

impl ClientRequest {
    /// Reads the text in which the platform describes the request.
    pub(crate) fn of(body: ClientBody, text: &str, exchange: RawExchange, inbox: Rc<RefCell<Inbox>>) -> Self {
        let mut rest = text;
        let mut next = || {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            rest = after;
            line
        };
        let (id, method, url) = (next().to_owned(), next().to_owned(), next());
        let place = [next(), next(), next()].map(|text| (!text.is_empty()).then(|| text.to_owned()));
        Self {
            id,
            method,
            address: Address::of(url),
            place,
            headers: Headers::read(rest.to_owned()),
            body,
            exchange,
            inbox,
        }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The platform's side of its exchange.
    pub(crate) fn exchange(&self) -> &RawExchange {
        &self.exchange
    }

    /// The body.
    pub(crate) fn body(&self) -> &ClientBody {
        &self.body
    }

    /// The body in pieces. `None` if there is no body, or if it was already read.
    pub(crate) fn pieces(&self) -> Option<Pieces> {
        let is_unread = self.body.is_unread();
        is_unread.then(|| Pieces::new(self.exchange.clone(), Rc::clone(&self.inbox), self.body.clone()))
    }
}

/// The parts of a request's URL, as the client wrote them.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Address {
    /// The host name, without a port.
    pub(crate) host: String,
    /// The path, neither decoded nor normalised.
    pub(crate) path: String,
    /// The text after the question mark.
    pub(crate) query: String,
}

impl Address {
    /// Reads host, path and query of a URL.
    fn of(url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or(rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // A port is the digits after the last colon. The brackets of an IPv6 address stay, because no service has such
        // a host name.
        let host = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
        Self { host: host.to_owned(), path: path.to_owned(), query: query.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_cut_where_its_parts_end() {
        let parts = |url: &str| {
            let Address { host, path, query } = Address::of(url);
            (host, path, query)
        };
        let plain = |host: &str, path: &str, query: &str| (host.to_owned(), path.to_owned(), query.to_owned());
        assert_eq!(parts("https://a.example/v1/x?y=1?z#f"), plain("a.example", "/v1/x", "y=1?z"));
        assert_eq!(parts("http://u:p@a.example:8787/"), plain("a.example", "/", ""));
        assert_eq!(parts("http://[::1]:99?x"), plain("[::1]", "/", "x"));
        assert_eq!(parts("http://[::1]/"), plain("[::1]", "/", ""));
    }
}
