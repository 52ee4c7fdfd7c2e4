//! The rules and the zone that most behaviours start from.

use bailiwick_tests::stand_in::StandIn;
use serde_json::{Value, json};

/// Stand-ins for the health endpoints of five regions. `us-virginia` lies outside every European fence.
pub(crate) struct World {
    pub(crate) frankfurt: StandIn,
    pub(crate) paris: StandIn,
    pub(crate) london: StandIn,
    pub(crate) virginia: StandIn,
}

impl World {
    pub(crate) fn start() -> Self {
        Self {
            frankfurt: StandIn::start(),
            paris: StandIn::start(),
            london: StandIn::start(),
            virginia: StandIn::start(),
        }
    }

    /// Rules at `revision`: four regions, probed five times a second.
    pub(crate) fn rules(&self, revision: u64) -> Value {
        let region = |number: u8, country: &str, stand_in: &StandIn| {
            json!({
                "countries": [country],
                "answers": {
                    "A": [format!("192.0.2.{number}")],
                    "AAAA": [format!("2001:db8::{number}")],
                    "TXT": [format!("region {number}")],
                },
                "monitor": { "type": "http", "url": stand_in.health_url(), "interval": "200ms", "timeout": "2s",
                             "up_thresh": 2, "ok_thresh": 2, "down_thresh": 2 },
            })
        };
        let residency = json!([
            { "clients": ["eu"], "process_in": ["eu"] },
            { "clients": ["uk"], "process_in": ["uk", "eu"] },
            { "clients": ["us"], "process_in": ["us"] },
        ]);
        let regions = json!(["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"]);
        json!({
            "version": 1,
            "revision": revision,
            "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] },
                "us": { "countries": ["US"] } },
            "regions": {
                "eu-frankfurt": region(10, "DE", &self.frankfurt),
                "eu-paris": region(20, "FR", &self.paris),
                "uk-london": region(30, "GB", &self.london),
                "us-virginia": region(40, "US", &self.virginia),
            },
            "services": {
                "chat": { "hosts": ["chat.ai.example.com"], "pattern": "active-active", "regions": regions,
                          "residency": residency },
                "strict": { "hosts": ["strict.ai.example.com"], "pattern": "active-active", "regions": regions,
                            "residency": residency, "when_all_down": "fail",
                            "denied_answers": { "A": ["192.0.2.99"], "AAAA": ["2001:db8::99"], "TXT": ["denied"] } },
            },
            "networks": [{ "prefix": "198.51.100.0/25", "country": "DE" }],
        })
    }
}

/// A zone with each shape an answer can have.
pub(crate) const ZONE: &str = r#"$ORIGIN ai.example.com.
$TTL 300
@       IN SOA  ns1 hostmaster 1 3600 600 86400 60
@       IN NS   ns1
ns1     IN A    192.0.2.53
www     IN A    192.0.2.80
alias   IN CNAME www
steered IN CNAME chat
away    IN CNAME elsewhere.example.
*.wild  IN TXT  "from the wildcard"
deep.empty IN A 192.0.2.81
sub     IN NS   ns.sub
ns.sub  IN A    192.0.2.54
big     IN TXT  "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
big     IN TXT  "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
big     IN TXT  "2222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222"
big     IN TXT  "3333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333333"
big     IN TXT  "4444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444"
big     IN TXT  "5555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555555"
big     IN TXT  "6666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666666"
chat    IN MX   10 www
"#;
