//! Reads service bindings, the data of HTTPS and SVCB records. Takes the presentation text of RFC 9460 from the rules
//! document; returns priority, target and parameters in wire order, or what is wrong. The DNS server makes records from
//! them.
//!
//! A binding may not contain address hints. They are derived from the addresses beside the binding, so that the two
//! never disagree.

use super::HostName;

/// One HTTPS or SVCB record (RFC 9460 §2.2).
///
/// ```
/// use bailiwick_rules::rules::ServiceBinding;
/// let binding = ServiceBinding::parse("1 . alpn=h2 port=8443").unwrap();
/// assert_eq!((binding.priority, binding.target), (1, None));
/// assert_eq!(binding.params, [(1, b"\x02h2".to_vec()), (3, 8443_u16.to_be_bytes().to_vec())]);
/// assert!(ServiceBinding::parse("1 . ipv4hint=192.0.2.1").unwrap_err().contains("derived"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceBinding {
    /// 0: an alias to the target, without parameters. Others: a service, the lower the better.
    pub priority: u16,
    /// Where the service is; `None` is `.`: at the owner, or for an alias, nowhere.
    pub target: Option<HostName>,
    /// Keys and values as they stand in the record, by ascending key.
    pub params: Vec<(u16, Vec<u8>)>,
}

/// The parameters that have names, with their numbers (RFC 9460 §14.3.2, RFC 9461, RFC 9540). Address hints are left
/// out.
const NAMES: [(&str, u16); 7] =
    [("mandatory", 0), ("alpn", 1), ("no-default-alpn", 2), ("port", 3), ("ech", 5), ("dohpath", 7), ("ohttp", 8)];
/// The keys of address hints: each by its name and by its number.
const HINTS: [&str; 4] = ["ipv4hint", "ipv6hint", "key4", "key6"];
/// The longest text of a binding, in bytes: well below what a DNS message can hold.
const LONGEST: usize = 4096;

impl ServiceBinding {
    /// Reads priority, target and parameters (RFC 9460 §2.1).
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the text's place.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("is {} bytes long; a service binding here may have {LONGEST}", text.len()));
        }
        let (priority, rest) = word(text);
        let (target, rest) = word(rest);
        if target.is_empty() {
            return Err("has no target; write priority, target and parameters, such as \"1 . alpn=h2\"".to_owned());
        }
        let priority = number(priority.as_bytes())
            .ok_or_else(|| format!("begins with {priority:?}; write a priority from 0 (an alias) to 65535"))?;
        let target = match target {
            "." => None,
            name => Some(HostName::parse(name).ok_or_else(|| {
                format!("has the target {name:?}, which is no host name; write one, or \".\" for the owner itself")
            })?),
        };
        let mut params: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut rest = rest.trim_start();
        while !rest.is_empty() {
            let (name, value, left) = parameter(rest)?;
            let key = key(name)?;
            if params.iter().any(|(other, _)| *other == key) {
                return Err(format!("has {name} twice; write it once"));
            }
            params.push((key, encode(key, name, value)?));
            rest = left.trim_start();
        }
        params.sort_unstable();
        let binding = Self { priority, target, params };
        binding.check()?;
        Ok(binding)
    }

    /// Whether this points elsewhere instead of describing a service.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.priority == 0
    }

    /// Checks that the parameters fit each other.
    fn check(&self) -> Result<(), String> {
        let has = |key: u16| self.params.iter().any(|(other, _)| *other == key);
        if self.is_alias() && !self.params.is_empty() {
            return Err(
                "is an alias (priority 0) with parameters, which nobody would read; remove them, or give it a \
                priority from 1"
                    .to_owned(),
            );
        }
        if has(2) && !has(1) {
            return Err("has no-default-alpn without alpn, so no protocol is left; add alpn".to_owned());
        }
        let Some((_, mandatory)) = self.params.first().filter(|(key, _)| *key == 0) else { return Ok(()) };
        for key in mandatory.chunks_exact(2).map(|key| u16::from_be_bytes([key[0], key[1]])) {
            if !has(key) {
                return Err(format!("calls {} mandatory, which isn't there; add it", name_of(key)));
            }
        }
        Ok(())
    }
}

/// The text up to the first white space, and the rest.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()))
}

/// The number of decimal digits, if it fits into 16 bits.
fn number(digits: &[u8]) -> Option<u16> {
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// One `key` or `key=value` at the start of `text`: the key, the unescaped value, and the rest of the text.
fn parameter(text: &str) -> Result<(&str, Option<Vec<u8>>, &str), String> {
    let end = text.find(|character: char| character == '=' || character.is_whitespace()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(rest) = rest.strip_prefix('=') else { return Ok((name, None, rest)) };
    let (value, left) = character_string(rest).ok_or_else(|| {
        format!(
            "has a value of {name} that doesn't end or has a bad escape; close the quote, write \\\\ for a backslash"
        )
    })?;
    Ok((name, Some(value), left))
}

/// A character-string (RFC 1035 §5.1), which is quoted or ends at white space. Returns it unescaped once, and the rest.
fn character_string(text: &str) -> Option<(Vec<u8>, &str)> {
    let bytes = text.as_bytes();
    let quoted = bytes.first() == Some(&b'"');
    let mut at = usize::from(quoted);
    let mut value = Vec::new();
    loop {
        match bytes.get(at) {
            None if quoted => return None,
            None => return Some((value, "")),
            Some(b'"') if quoted => {
                return text
                    .get(at + 1..)
                    .filter(|left| left.is_empty() || left.starts_with(char::is_whitespace))
                    .map(|left| (value, left));
            }
            Some(b'"') => return None,
            Some(byte) if !quoted && byte.is_ascii_whitespace() => return Some((value, text.get(at..)?)),
            Some(b'\\') => {
                let first = *bytes.get(at + 1)?;
                if first.is_ascii_digit() {
                    let digits = core::str::from_utf8(bytes.get(at + 1..at + 4)?).ok()?;
                    value.push(number(digits.as_bytes())?.try_into().ok()?);
                    at += 4;
                } else {
                    value.push(first);
                    at += 2;
                }
            }
            Some(&byte) => {
                value.push(byte);
                at += 1;
            }
        }
    }
}

/// The number of a parameter with this name.
fn key(name: &str) -> Result<u16, String> {
    if HINTS.contains(&name) {
        return Err(format!("has {name}; leave it out, address hints are derived from the A and AAAA beside it"));
    }
    if let Some((_, key)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*key);
    }
    let unknown = || {
        let known: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        format!("has the parameter {name:?}, which is unknown; known: {}, and key9 to key65534", known.join(", "))
    };
    let digits = name.strip_prefix("key").ok_or_else(unknown)?;
    let key =
        number(digits.as_bytes()).filter(|key| *key < u16::MAX && key.to_string() == digits).ok_or_else(unknown)?;
    match NAMES.iter().find(|(_, known)| *known == key) {
        Some((known, _)) => Err(format!("has {name}; write it by its name, {known}")),
        None => Ok(key),
    }
}

fn name_of(key: u16) -> String {
    NAMES.iter().find(|(_, known)| *known == key).map_or_else(|| format!("key{key}"), |(name, _)| (*name).to_owned())
}

/// A value in the wire form of its key (RFC 9460 §7, §8; RFC 9461 §5; RFC 9540 §4).
fn encode(key: u16, name: &str, value: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    let required = |what: &str| match &value {
        Some(value) if !value.is_empty() => Ok(value.as_slice()),
        _ => Err(format!("has {name} without a value; write {what}")),
    };
    match key {
        0 => mandatory(required("the keys a client must understand, such as mandatory=alpn")?),
        1 => alpn(required("protocols, such as alpn=h2,h3")?),
        2 | 8 => match value {
            None => Ok(Vec::new()),
            Some(_) => Err(format!("has {name} with a value; it takes none")),
        },
        3 => {
            let digits = required("a port, such as port=8443")?;
            let port = number(digits).ok_or("has a port that is no number up to 65535; write one such as port=8443")?;
            Ok(port.to_be_bytes().to_vec())
        }
        5 => base64(required("an ECHConfigList in base64")?)
            .ok_or_else(|| "has an ech that is no base64; write the ECHConfigList in base64".to_owned()),
        7 => {
            let path = required("a URI template, such as dohpath=/dns-query{?dns}")?;
            let fits = path.starts_with(b"/")
                && path.windows(4).any(|part| part == b"?dns")
                && core::str::from_utf8(path).is_ok();
            if fits {
                Ok(path.to_vec())
            } else {
                Err("has a dohpath that is no template with the variable dns; write one such as \
                    dohpath=/dns-query{?dns}"
                    .to_owned())
            }
        }
        _ => Ok(value.unwrap_or_default()),
    }
}

/// The wire form of `mandatory`: the numbers of the keys in ascending order, each once (RFC 9460 §8).
fn mandatory(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut keys = Vec::new();
    for name in value.split(|byte| *byte == b',') {
        let name = String::from_utf8_lossy(name);
        match key(&name)? {
            0 => {
                return Err("calls mandatory itself mandatory, which it always is; leave it out of its list".to_owned());
            }
            key if keys.contains(&key) => return Err(format!("has {name} twice in mandatory; write it once")),
            key => keys.push(key),
        }
    }
    keys.sort_unstable();
    Ok(keys.into_iter().flat_map(u16::to_be_bytes).collect())
}

/// The wire form of `alpn`: protocol ids, each after its length (RFC 9460 §7.1.1). In the text, commas separate the
/// ids, and `\,` is a comma inside an id (appendix A.1).
fn alpn(value: &[u8]) -> Result<Vec<u8>, String> {
    let mut ids = vec![Vec::new()];
    let mut rest = value.iter().copied();
    while let Some(byte) = rest.next() {
        let open = ids.last_mut().ok_or("has no protocol in alpn")?;
        match byte {
            b',' => ids.push(Vec::new()),
            b'\\' => open.push(rest.next().ok_or("has an alpn that ends in a backslash; remove it")?),
            plain => open.push(plain),
        }
    }
    let mut wire = Vec::new();
    for id in ids {
        let length = u8::try_from(id.len()).ok().filter(|length| *length > 0);
        wire.push(length.ok_or("has a protocol of no or more than 255 bytes in alpn; write ids such as alpn=h2,h3")?);
        wire.extend(id);
    }
    Ok(wire)
}

/// The bytes of a text in base64 with padding (RFC 4648 §4).
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let digits = &text[..text.len() - padding];
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in digits {
        buffer = buffer << 6 | u32::from(digit(*byte)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            let [.., byte] = (buffer >> bits).to_be_bytes();
            bytes.push(byte);
            buffer &= (1 << bits) - 1;
        }
    }
    (buffer == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Vec<(u16, Vec<u8>)> {
        ServiceBinding::parse(text).unwrap_or_else(|error| panic!("{text} {error}")).params
    }

    /// The vectors of RFC 9460 appendix D.1 and D.2 that have no address hints.
    #[test]
    fn rfc9460_d_vectors_are_read() {
        let alias = ServiceBinding::parse("0 foo.example.com.").unwrap();
        assert_eq!((alias.is_alias(), alias.target), (true, HostName::parse("foo.example.com")));
        assert_eq!(ServiceBinding::parse("1 .").unwrap(), ServiceBinding { priority: 1, target: None, params: vec![] });
        assert_eq!(params("16 foo.example.com. port=53"), [(3, vec![0, 53])]);
        assert_eq!(params("1 foo.example.com. key667=hello"), [(667, b"hello".to_vec())]);
        assert_eq!(params(r#"1 foo.example.com. key667="hello\210qoo""#), [(667, b"hello\xd2qoo".to_vec())]);
        let escaped = [(1, b"\x08f\\oo,bar\x02h2".to_vec())];
        assert_eq!(params(r#"16 foo.example.org. alpn="f\\\\oo\\,bar,h2""#), escaped);
        assert_eq!(params(r"16 foo.example.org. alpn=f\\\092oo\092,bar,h2"), escaped);
    }

    #[test]
    fn parameters_are_ordered_by_key() {
        let reported = params(
            "16 foo.example.org. port=443 alpn=h2,h3-19 mandatory=port,alpn ech=AEX+ key9=\"a b\" no-default-alpn",
        );
        assert_eq!(reported[0], (0, vec![0, 1, 0, 3]));
        assert_eq!(reported[1], (1, b"\x02h2\x05h3-19".to_vec()));
        assert_eq!(reported[2..4], [(2, vec![]), (3, vec![1, 187])]);
        assert_eq!(reported[4..], [(5, vec![0, 0x45, 0xfe]), (9, b"a b".to_vec())]);
        assert_eq!(
            params("1 . alpn=h2 dohpath=/dns-query{?dns} ohttp")[1..],
            [(7, b"/dns-query{?dns}".to_vec()), (8, vec![])]
        );
    }

    /// RFC 9460 appendix D.3, and more.
    #[test]
    fn mistakes_are_reported() {
        for (text, part) in [
            ("", "no target"),
            ("1", "no target"),
            ("one .", "begins with \"one\""),
            ("65536 .", "begins with \"65536\""),
            ("1 a..b", "no host name"),
            ("1 foo.example.com. key123=abc key123=def", "twice"),
            ("1 foo.example.com. mandatory", "without a value"),
            ("1 foo.example.com. alpn", "without a value"),
            ("1 foo.example.com. port", "without a value"),
            ("1 foo.example.com. ech", "without a value"),
            ("1 foo.example.com. no-default-alpn=abc", "takes none"),
            ("1 foo.example.com. mandatory=key123", "key123 mandatory, which isn't there"),
            ("1 foo.example.com. mandatory=mandatory", "leave it out of its list"),
            ("1 foo.example.com. mandatory=key123,key123 key123=abc", "twice in mandatory"),
            ("1 . ipv4hint=192.0.2.1", "are derived"),
            ("1 . ipv6hint=2001:db8::1", "are derived"),
            ("1 . key4=x", "are derived"),
            ("1 . mandatory=ipv4hint", "are derived"),
            ("1 . key3=x", "by its name, port"),
            ("1 . key65535=x", "unknown"),
            ("1 . key007=x", "unknown"),
            ("1 . aplh=h2", "unknown"),
            ("1 . no-default-alpn", "without alpn"),
            ("0 a.example alpn=h2", "alias"),
            ("1 . alpn=\"h2", "doesn't end"),
            ("1 . alpn=\"h2\"x", "doesn't end"),
            ("1 . alpn=h2\\", "bad escape"),
            ("1 . alpn=h2\\999", "bad escape"),
            ("1 . alpn=h2,,h3", "no or more than 255"),
            ("1 . port=-1", "no number"),
            ("1 . ech=AEX", "no base64"),
            ("1 . dohpath=dns", "template"),
        ] {
            let error = ServiceBinding::parse(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused() {
        proptest::proptest!(|(text in "[0-9]{1,2} [a-z.]{1,4} [a-z0-9=\\\\\", é]{0,40}")| {
            let _ = ServiceBinding::parse(&text);
        });
    }
}
