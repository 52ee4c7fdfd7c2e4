//! Takes a connection error or TLS error, returns a sentence that an operator can act on. Called by the prober.

use std::error::Error;
use std::io;

use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::time::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// The TLS settings of a request, as far as an error message mentions them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TlsSettings<'a> {
    /// The server name (SNI) that was requested.
    pub(super) name: &'a str,
    /// The file with the trusted authorities. With `None`, the system's authorities were trusted.
    pub(super) ca_file: Option<&'a str>,
}

/// Describes an error. An error about certificates says what to mend. Other errors are written with all their causes,
/// because the outermost error says little more than "error sending request".
pub(super) fn describe(error: &(dyn Error + 'static), tls: TlsSettings<'_>) -> String {
    tls_error(error).and_then(|error| describe_tls(error, tls)).unwrap_or_else(|| chain(error))
}

/// The texts of an error and its causes, joined by colons.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The message for a failed address, if all addresses of a family have to answer. It says so if this node itself has no
/// route for the family.
pub(super) fn by_address(failure: &str, error: &(dyn Error + 'static), family: AddressFamily) -> String {
    let no_route = |error: &io::Error| error.kind() == io::ErrorKind::NetworkUnreachable;
    match io_error(error).is_some_and(no_route) {
        true => format!("{failure}: this node has no way by {family}; give it one, or watch another \"family\""),
        false => failure.to_owned(),
    }
}

/// The TLS error among the causes. An [`io::Error`] has to be unwrapped, because its `source` skips the wrapped error.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let inside: Option<&'e (dyn Error + 'static)> = inside.map(|inside| inside as _);
    let outer = error.downcast_ref().or_else(|| tls_error(inside?));
    outer.or_else(|| tls_error(error.source()?))
}

/// The I/O error among the causes.
fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    error.downcast_ref().or_else(|| io_error(error.source()?))
}

/// The message for a TLS error that an operator can mend; `None` for other TLS errors.
fn describe_tls(error: &rustls::Error, tls: TlsSettings<'_>) -> Option<String> {
    let name = tls.name;
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            return Some(format!("the endpoint serves no name {name}; set \"sni\" to one that it serves"));
        }
        _ => return None,
    };
    Some(match certificate {
        CertificateError::Expired => format!("the certificate for {name} has expired; renew it at the endpoint"),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate for {name} expired at {}; renew it at the endpoint", timestamp(*not_after))
        }
        CertificateError::NotValidYet => not_yet(name, ""),
        CertificateError::NotValidYetContext { not_before, .. } => {
            not_yet(name, &format!(" before {}", timestamp(*not_before)))
        }
        CertificateError::NotValidForName => wrong_name(name, "another name"),
        CertificateError::NotValidForNameContext { presented, .. } => wrong_name(name, &names(presented)),
        // A trusted authority with the issuer's name but another key gives `BadSignature`, not `UnknownIssuer`.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match tls.ca_file {
            Some(file) => format!(
                "the certificate for {name} is issued by no authority in {file}; add its authority there, or have the \
                 endpoint send its intermediate certificates"
            ),
            None => format!(
                "the certificate for {name} is issued by no authority that this system trusts; name a file with its \
                 authority by \"ca_file\", or have the endpoint send its intermediate certificates"
            ),
        },
        other => format!("the certificate for {name} can't be trusted ({other}); have another issued for the endpoint"),
    })
}

/// The message if a certificate isn't valid yet.
fn not_yet(name: &str, when: &str) -> String {
    format!("the certificate for {name} isn't valid{when} yet; mend its dates, or the clock of this node")
}

/// The message if a certificate is for another name.
fn wrong_name(name: &str, presented: &str) -> String {
    format!(
        "the endpoint's certificate is for {presented}, not for {name}; set \"sni\" to a name that it is for, or have \
         one issued for {name}"
    )
}

/// The names of a certificate, joined by commas. rustls writes each name as `DnsName("gpu.example.net")`.
fn names(presented: &[String]) -> String {
    let unwrapped = |name: &String| match name.split_once("(\"") {
        Some((_, rest)) => rest.trim_end_matches("\")").to_owned(),
        None => name.clone(),
    };
    let names: Vec<String> = presented.iter().map(unwrapped).collect();
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

/// A time of rustls as a [`Timestamp`].
fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 1000).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;

    const WITH_CA_FILE: TlsSettings<'static> = TlsSettings { name: "gpu.example.net", ca_file: Some("/etc/ca.pem") };

    /// The message for a certificate error.
    fn message(error: CertificateError, tls: TlsSettings<'_>) -> String {
        let error = rustls::Error::InvalidCertificate(error);
        // tokio-rustls wraps the error, and hyper wraps that.
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        describe(&wrapped, tls)
    }

    #[test]
    fn messages_about_certificates_name_the_server_and_say_what_to_mend() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let not_after = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        assert_eq!(
            message(CertificateError::ExpiredContext { time, not_after }, WITH_CA_FILE),
            "the certificate for gpu.example.net expired at 2023-11-14T22:13:20Z; renew it at the endpoint"
        );
        let expected = ServerName::try_from("gpu.example.net").unwrap();
        let presented = vec!["DnsName(\"other.example\")".to_owned(), "*.example.org".to_owned()];
        let text = message(CertificateError::NotValidForNameContext { expected, presented }, WITH_CA_FILE);
        assert!(text.starts_with(
            "the endpoint's certificate is for other.example, *.example.org, not for gpu.example.net; set \"sni\""
        ));
        let text = message(CertificateError::UnknownIssuer, WITH_CA_FILE);
        assert!(text.contains("no authority in /etc/ca.pem"), "{text}");
        let text = message(CertificateError::UnknownIssuer, TlsSettings { ca_file: None, ..WITH_CA_FILE });
        assert!(text.contains("\"ca_file\""), "{text}");
        let text = message(CertificateError::NotValidYetContext { time: not_after, not_before: time }, WITH_CA_FILE);
        assert!(text.contains("isn't valid before 2027-01-15T08:00:00Z yet"), "{text}");
    }

    #[test]
    fn other_errors_are_described_with_their_causes() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(describe(&refused, WITH_CA_FILE), "connection refused");
        let no_route = io::Error::from(io::ErrorKind::NetworkUnreachable);
        let text = by_address("[2001:db8::10]:443: network unreachable", &no_route, AddressFamily::Ipv6);
        assert!(text.contains("this node has no way by IPv6"), "{text}");
        assert_eq!(by_address("refused", &refused, AddressFamily::Ipv6), "refused");
    }
}
