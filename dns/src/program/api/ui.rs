//! `/ui/`: the page that shows it all. Takes a path and what a browser can decompress, returns a file of the page.
//!
//! The files are made by `scripts/build-ui` from `dns/ui` and are part of the program. Everybody may read them, as they
//! tell nothing of this node: what the page shows, it reads by the other paths, with a token where they need one.

mod files;

use axum::extract::Request;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};

use super::reply::Problem;

/// Scripts, styles and data come from this node alone, nothing is inline, and no page may frame this one.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// A file of the page: as it is, and compressed.
struct File {
    name: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    brotli: &'static [u8],
    gzip: &'static [u8],
}

/// Whether a path is one of the page.
pub(super) fn is_of_page(path: &str) -> bool {
    path == "/ui" || path.starts_with("/ui/")
}

/// The page itself stands at `/ui/`, so that its links are below it.
pub(super) async fn to_page() -> Redirect {
    Redirect::permanent("/ui/")
}

/// A file of the page.
pub(super) async fn file(request: Request) -> Result<Response, Problem> {
    let name = request.uri().path().strip_prefix("/ui/").unwrap_or_default();
    let name = if name.is_empty() { "index.html" } else { name };
    let file = files::FILES
        .iter()
        .find(|file| file.name == name)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such file of the page; the page itself is at /ui/"))?;
    let (bytes, encoding) = if accepts(request.headers(), "br") {
        (file.brotli, Some("br"))
    } else if accepts(request.headers(), "gzip") {
        (file.gzip, Some("gzip"))
    } else {
        (file.plain, None)
    };
    // Names of all but the page itself have a digest of their contents.
    let caching = if name == "index.html" { "no-cache" } else { "public, max-age=31536000, immutable" };
    let mut response = ([(CONTENT_TYPE, file.kind), (CACHE_CONTROL, caching)], bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.extend(encoding.map(|encoding| (CONTENT_ENCODING, HeaderValue::from_static(encoding))));
    Ok(response)
}

/// Whether a browser can decompress this (RFC 9110 §12.5.3). One that gives it a weight of 0 can't.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let listed = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case(encoding) && weight.is_some_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most bytes that a browser fetches for the page, Brotli-compressed.
    const MOST: usize = 100_000;

    #[test]
    fn the_page_has_at_most_100_kb_on_the_wire() {
        // Nobody needs the licences to see the page.
        let fetched = || files::FILES.iter().filter(|file| !file.name.starts_with("notices"));
        let sum = |bytes: fn(&File) -> &[u8]| fetched().map(|file| bytes(file).len()).sum::<usize>();
        let (brotli, plain) = (sum(|file| file.brotli), sum(|file| file.plain));
        println!("the page: {brotli} bytes by Brotli, {} by gzip, {plain} plain", sum(|file| file.gzip));
        assert!(brotli <= MOST && brotli > MOST / 5 && plain > brotli, "{brotli} of {plain} bytes");
    }

    #[test]
    fn nothing_of_the_page_is_inline_or_from_elsewhere() {
        let page = files::FILES.iter().find(|file| file.name == "index.html").unwrap();
        let page = std::str::from_utf8(page.plain).unwrap();
        for wrong in ["style=", "<style", "onload=", "http:", "https:", "data:", "//"] {
            assert!(!page.contains(wrong), "{wrong} in {page}");
        }
        for name in
            files::FILES.iter().map(|file| file.name).filter(|name| name.ends_with("js") || name.ends_with("css"))
        {
            assert!(page.contains(name), "{name} isn't linked");
        }
    }

    #[test]
    fn what_a_browser_accepts_is_read_with_its_weights() {
        let accepting = |value: &'static str, encoding| {
            accepts(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]), encoding)
        };
        assert!(accepting("gzip, deflate, br", "br") && accepting("GZIP;q=0.5,br;q=0", "gzip"));
        assert!(!accepting("gzip;q=1, br;q=0", "br") && !accepting("gzip", "br") && !accepting("", "gzip"));
        assert!(!accepts(&HeaderMap::new(), "br"));
    }
}
