//! Takes an error of a connection or of TLS, returns a sentence that an operator can act on. Called by the prober.

use std::error::Error;
use std::io;

use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::time::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// What was requested, as far as a message mentions it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The server name of TLS.
    pub(super) name: &'a str,
    /// The file whose authorities were trusted; `None`: the system's.
    pub(super) ca_file: Option<&'a str>,
}

/// An error with its causes. The outermost alone says little more than "error sending request". An error about
/// certificates says what to mend.
pub(super) fn describe(error: &(dyn Error + 'static), asked: Asked<'_>) -> String {
    tls_error(error).and_then(|error| of_tls(error, asked)).unwrap_or_else(|| chain(error))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The message if one address failed of those that all have to answer.
pub(super) fn by_address(failure: &str, error: &(dyn Error + 'static), family: AddressFamily) -> String {
    let no_route = |error: &io::Error| error.kind() == io::ErrorKind::NetworkUnreachable;
    match io_error(error).is_some_and(no_route) {
        true => format!("{failure}: this node has no way by {family}; give it one, or watch another \"family\""),
        false => failure.to_owned(),
    }
}

/// The TLS error among the causes. The sources of an [`io::Error`] don't include the error that it wraps.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let inside: Option<&'e (dyn Error + 'static)> = inside.map(|inside| inside as _);
    let found = error.downcast_ref().or_else(|| tls_error(inside?));
    found.or_else(|| tls_error(error.source()?))
}

/// The I/O error among the causes.
fn io_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e io::Error> {
    error.downcast_ref().or_else(|| io_error(error.source()?))
}

/// The message for a TLS error, if there is something to mend.
fn of_tls(error: &rustls::Error, asked: Asked<'_>) -> Option<String> {
    let name = asked.name;
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
        // The signature is bad if an authority of the same name has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match asked.ca_file {
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

/// The names of a certificate. rustls writes them as `DnsName("gpu.example.net")`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| match name.split_once("(\"") {
        Some((_, rest)) => rest.trim_end_matches("\")").to_owned(),
        None => name.clone(),
    };
    let names: Vec<String> = presented.iter().map(bare).collect();
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

/// The time as a timestamp.
fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX / 1000).saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;

    const OURS: Asked<'static> = Asked { name: "gpu.example.net", ca_file: Some("/etc/ca.pem") };

    fn said(error: CertificateError, asked: Asked<'_>) -> String {
        let error = rustls::Error::InvalidCertificate(error);
        // tokio-rustls wraps the error, and hyper wraps that.
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        describe(&wrapped, asked)
    }

    #[test]
    fn errors_of_certificates_say_which_name_and_what_to_mend() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let not_after = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        assert_eq!(
            said(CertificateError::ExpiredContext { time, not_after }, OURS),
            "the certificate for gpu.example.net expired at 2023-11-14T22:13:20Z; renew it at the endpoint"
        );
        let expected = ServerName::try_from("gpu.example.net").unwrap();
        let presented = vec!["DnsName(\"other.example\")".to_owned(), "*.example.org".to_owned()];
        let told = said(CertificateError::NotValidForNameContext { expected, presented }, OURS);
        assert!(told.starts_with(
            "the endpoint's certificate is for other.example, *.example.org, not for gpu.example.net; set \"sni\""
        ));
        let told = said(CertificateError::UnknownIssuer, OURS);
        assert!(told.contains("no authority in /etc/ca.pem"), "{told}");
        let told = said(CertificateError::UnknownIssuer, Asked { ca_file: None, ..OURS });
        assert!(told.contains("\"ca_file\""), "{told}");
        let told = said(CertificateError::NotValidYetContext { time: not_after, not_before: time }, OURS);
        assert!(told.contains("isn't valid before 2027-01-15T08:00:00Z yet"), "{told}");
    }

    #[test]
    fn other_errors_are_told_with_their_causes() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(describe(&refused, OURS), "connection refused");
        let none = io::Error::from(io::ErrorKind::NetworkUnreachable);
        let told = by_address("[2001:db8::10]:443: network unreachable", &none, AddressFamily::Ipv6);
        assert!(told.contains("this node has no way by IPv6"), "{told}");
        assert_eq!(by_address("refused", &refused, AddressFamily::Ipv6), "refused");
    }
}
