//! `bailiwick hash-key`: takes an API key from standard input, returns its digest for the rules.

use std::io::{BufRead, IsTerminal, Write};

use bailiwick_rules::rules::KeyDigest;
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::program::report::Report;

/// How many random bytes a new key has.
const KEY_BYTES: usize = 32;

/// Options of `bailiwick hash-key`.
#[derive(Debug, Args)]
pub(crate) struct HashKeyArgs {
    /// Make a new random key and print it with its digest. It is stored nowhere.
    #[arg(long)]
    generate: bool,
}

pub(crate) fn run(args: &HashKeyArgs) -> Report {
    if args.generate {
        return match random_key() {
            Ok(key) => Report::fine(format!("key     {key}\nsha256  {}\n", KeyDigest::of_key(&key))),
            Err(error) => Report::error(error),
        };
    }
    let stdin = std::io::stdin();
    let line = if stdin.is_terminal() { ask() } else { read_line(&mut stdin.lock()) };
    match line.map_err(|error| format!("standard input: can't be read: {error}")).and_then(|line| digest(&line)) {
        Ok(digest) => Report::fine(format!("{digest}\n")),
        Err(error) => Report::error(error),
    }
}

/// A new API key (or bearer token): 256 random bits after a prefix by which scanners for leaked secrets can recognise
/// the key.
pub(super) fn random_key() -> Result<String, String> {
    let mut bytes = [0_u8; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(bytes.iter().fold("bw_".to_owned(), |key, byte| format!("{key}{byte:02x}")))
}

fn read_line(input: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line)
}

/// Asks for the key on the terminal, and doesn't show what is typed.
fn ask() -> std::io::Result<String> {
    let stdin = std::io::stdin();
    eprint!("API key: ");
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    hidden.local_flags.insert(LocalFlags::ECHONL);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden)?;
    let line = read_line(&mut stdin.lock());
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before)?;
    line
}

/// The digest of the key on a line.
fn digest(line: &str) -> Result<KeyDigest, String> {
    let key = line.strip_suffix('\n').unwrap_or(line);
    let key = key.strip_suffix('\r').unwrap_or(key);
    if key.is_empty() {
        return Err("standard input: no key; write it on one line, or make one with --generate".to_owned());
    }
    // A key that an `Authorization` header can't carry would never match.
    if key.trim() != key || !key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err("standard input: the key has spaces around it or characters beyond printable ASCII, which no \
                    Authorization header can carry; check what was pasted"
            .to_owned());
    }
    Ok(KeyDigest::of_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_ending_is_no_part_of_the_key() {
        // printf 'sk-test' | sha256sum
        let known = "f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0";
        let digests: Vec<String> =
            ["sk-test", "sk-test\n", "sk-test\r\n"].iter().map(|line| digest(line).unwrap().to_string()).collect();
        assert_eq!(digests[0], digests[1]);
        assert_eq!(digests[0], digests[2]);
        assert_eq!(digests[0], known);
    }

    #[test]
    fn what_no_header_carries_is_refused() {
        for line in ["", "\n", " sk", "sk \n", "sk\tx", "clé"] {
            assert!(digest(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn new_keys_differ_and_can_be_hashed() {
        let (one, other) = (random_key().unwrap(), random_key().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 3 + 2 * KEY_BYTES);
        assert!(digest(&one).is_ok());
    }
}
