//! Reads `[api.access_log]`: who gets the events of who changes what. Called by the reader of `[api]`.

use bailiwick_rules::rules::{HttpUrl, SecretName};

use super::{Key, Reader, Value};
use crate::program::config::AccessLog;
use crate::program::config::keys::names;

impl Reader<'_> {
    /// Reads the section `[api.access_log]`.
    pub(super) fn access_log(&mut self, section: &Key<'_>, value: &Value<'_>) -> Option<AccessLog> {
        let example = "otlp = \"https://otel.example.net/v1/logs\"";
        let table = self.section("api.access_log", example, value)?;
        let (mut otlp, mut secret) = (None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "otlp" => otlp = Some(self.receiver(value)),
                "secret" => secret = self.secret_name(value),
                _ => self.no_key("api.access_log.", key, &names("api.access_log")),
            }
        }
        if otlp.is_none() {
            let message =
                format!("\"api.access_log.otlp\" is missing; write where events are posted, such as {example}");
            self.note(section.span(), message);
        }
        Some(AccessLog { otlp: otlp??, secret })
    }

    fn receiver(&mut self, value: &Value<'_>) -> Option<HttpUrl> {
        let text = self.string("api.access_log.otlp", value)?;
        HttpUrl::of_receiver(text).map_err(|why| self.note(value.span(), format!("\"api.access_log.otlp\" {why}"))).ok()
    }

    fn secret_name(&mut self, value: &Value<'_>) -> Option<SecretName> {
        let text = self.string("api.access_log.secret", value)?;
        SecretName::parse(text).or_else(|| {
            let message = format!(
                "\"api.access_log.secret\" is \"{text}\"; write the name of a secret in letters, digits and \"_\", and \
                 its file in [secrets]"
            );
            self.fail(value.span(), message)
        })
    }
}
