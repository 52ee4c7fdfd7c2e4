//! Handles SIGHUP: reads the configuration again. Applies the settings that can change while the server runs, and names
//! in the log those that can't. Called by `serve`.

use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::settings;
use crate::net::streams::Gate;
use crate::program::config::Config;
use crate::program::responder::Responder;
use crate::state::owner::Handle;
use crate::state::probe::Secrets;

/// The parts of a running server that a reload can change.
pub(super) struct Changeable {
    /// Has the settings of responses.
    pub(super) responder: Arc<Responder>,
    /// Has the limits of connections.
    pub(super) gate: Arc<Gate>,
    /// Gives access to the online signer, which has the limit of signatures.
    pub(super) handle: Handle,
    /// The secrets that probes send.
    pub(super) secrets: Secrets,
}

impl Changeable {
    /// Reads the file again. If it has errors, nothing changes. Returns the configuration that is in service now.
    pub(super) fn reload(&self, file: &Path, current: Config) -> Config {
        let new = match Config::read(file) {
            Ok(new) => new,
            Err(errors) => {
                errors.iter().for_each(|error| error!("the configuration stays as it was: {error}"));
                // The files that the current configuration names may have changed.
                self.renew_settings(&current, true);
                return current;
            }
        };
        for key in changed_fixed_keys(&current, &new) {
            warn!(
                "{}: {key} has changed, which a running server can't follow; SIGUSR2 or `serve --takeover` puts it in \
                 service without losing a query",
                file.display()
            );
        }
        let same = new.identity == current.identity && new.responses == current.responses;
        let is_other = !same || new.cookies != current.cookies || new.tcp != current.tcp;
        self.renew_settings(&new, is_other || !new.cookies.secret_files.is_empty());
        self.gate.limit(new.tcp);
        self.handle.snapshot().world().online_signer().limit(new.signing);
        self.secrets.set_files(new.secrets.clone());
        if is_other || new.signing != current.signing || new.secrets != current.secrets {
            info!(
                "the configuration has changed: identity, cookies, responses, [tcp], [signing] and [secrets] are in \
                 service as it says"
            );
        }
        let Config { identity, cookies, responses, tcp, signing, secrets, .. } = new;
        Config { identity, cookies, responses, tcp, signing, secrets, ..current }
    }

    /// Applies the settings of responses, if `is_due`, and reads the cookie secrets again. If a file of secrets can't
    /// be used, the old secrets stay. A random secret changes too, so the caller calls this only if it has to.
    fn renew_settings(&self, config: &Config, is_due: bool) {
        if !is_due {
            return;
        }
        match settings(config) {
            Ok(settings) => self.responder.set(settings),
            Err(faults) => faults.iter().for_each(|fault| warn!("cookie secrets stay as they were: {fault}")),
        }
    }
}

/// The keys whose values differ, of those that can't change while the server runs.
fn changed_fixed_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let differ = [
        ("node", old.node != new.node),
        ("listen", old.listen != new.listen),
        ("ipv6_only", old.ipv6_only != new.ipv6_only),
        ("threads", old.threads != new.threads),
        ("rules", old.rules != new.rules),
        ("geoip", old.geoip != new.geoip),
        ("geoip_registered_country", old.registered != new.registered),
        ("state_dir", old.state_dir != new.state_dir),
        ("shrink", old.shrink != new.shrink),
        ("[zones]", old.zones != new.zones),
        ("[dnssec]", old.dnssec != new.dnssec),
        ("[api]", old.api != new.api),
        ("[dot]", old.dot != new.dot),
        ("[doq]", old.doq != new.doq),
        ("[doh]", old.doh != new.doh),
        ("[rate_limit]", old.rate_limit != new.rate_limit),
        ("[fleet]", old.fleet != new.fleet),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_change_is_named() {
        let read = |text: &str| Config::parse(text, "b.toml", Path::new("/etc/b")).unwrap();
        let old = read("listen = ['127.0.0.1:53']\nrules = 'r.json'\n");
        assert!(changed_fixed_keys(&old, &old).is_empty());
        let new = read(
            "listen = ['127.0.0.1:54']\nrules = 's.json'\nthreads = 2\n[identity]\nnsid = 'x'\n[zones]\n\
             'a.example' = 'a'\n",
        );
        assert_eq!(changed_fixed_keys(&old, &new), ["listen", "threads", "rules", "[zones]"]);
    }
}
