//! Reads the fields of HTTP requests that several kinds of objects have: base URLs, names and authorities of TLS, and
//! the version of Azure's API. Called by the readers of regions, monitors and sources of loads.

use super::value::http_url;
use crate::json::{Fields, Node, Reader};
use crate::rules::authority::{Authority, server_name};
use crate::rules::{HostName, HttpUrl, Style};

/// A base URL, to which the paths of requests are appended.
pub(super) fn base_url(reader: &mut Reader<'_>, node: &Node) -> Option<HttpUrl> {
    let url = http_url(reader, node)?;
    match url.unfit_for_endpoint() {
        Some(message) => reader.fail(message),
        None => Some(url),
    }
}

/// The `api_version` of an endpoint of this style: required for Azure, refused for others.
pub(super) fn api_version(fields: &mut Fields<'_, '_, '_>, style: Style) -> Option<String> {
    let read = |reader: &mut Reader<'_>, node: &Node| {
        let text = reader.string(node)?;
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if fits { Some(text.to_owned()) } else { reader.fail("is no version; write one such as \"2024-10-21\"") }
    };
    match style {
        Style::Azure => fields.required("api_version", "the Azure API's version, such as \"2024-10-21\"", read),
        Style::OpenAi if fields.has("api_version") => fields
            .optional("api_version", |reader, _| reader.fail("belongs to \"style\": \"azure\" only; leave it out")),
        Style::OpenAi => None,
    }
}

/// The fields that change the server name of a request and the trusted authorities: `host`, `sni` and `ca_file`.
pub(super) fn tls_fields(
    fields: &mut Fields<'_, '_, '_>,
    url: Option<&HttpUrl>,
) -> (Option<Authority>, Option<HostName>, Option<String>) {
    let host = fields.optional("host", |reader, node| {
        let text = reader.string(node)?;
        Authority::parse(text).map_or_else(|problem| reader.fail(format!("is {text:?}, which {problem}")), Some)
    });
    let is_plain = url.is_some_and(|url| url.as_url().scheme() == "http");
    let sni = fields.optional("sni", |reader, node| {
        let text = of_tls(reader, node, is_plain)?;
        server_name(text).map_or_else(|problem| reader.fail(format!("is {text:?}, which {problem}")), Some)
    });
    let ca_file = fields.optional("ca_file", |reader, node| match of_tls(reader, node, is_plain)? {
        "" => reader.fail("is empty; name a PEM file, or leave it out to trust the system's authorities"),
        path if path.chars().any(char::is_control) => {
            reader.fail("holds a control character; write the path of a PEM file")
        }
        path => Some(path.to_owned()),
    });
    (host, sni, ca_file)
}

/// The text of a field that is only useful with TLS; refused if the URL is plain `http`.
fn of_tls<'n>(reader: &mut Reader<'_>, node: &'n Node, is_plain: bool) -> Option<&'n str> {
    if is_plain {
        return reader.fail("belongs to an https \"url\" only; leave it out, or write the url with https");
    }
    reader.string(node)
}
