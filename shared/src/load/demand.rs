//! Takes a JSON object of requests in flight by service and country, returns [`Demand`] or every mistake in the object.
//! Called by `bailiwick plan --demand` and by the reader of scenarios.

use super::{Amount, Demand};
use crate::geo::CountryCode;
use crate::json::{Node, Reader, Violation, nearest};
use crate::table::Table;

/// The most requests in flight from one country.
const MAX: f64 = 1e9;

/// Reads `{"chat": {"DE": 120, "FR": 80.5, "unknown": 3}}`.
///
/// # Errors
/// Every mistake, with its JSON pointer.
///
/// ```
/// use bailiwick_rules::load::read_demand;
/// use bailiwick_rules::table::Table;
/// let table = Table::compile(br#"{ "version": 1, "revision": 1 }"#).unwrap();
/// let mistakes = read_demand(&table, br#"{ "chat": { "DE": 120 } }"#).unwrap_err();
/// assert_eq!(mistakes[0].pointer, "/chat");
/// ```
pub fn read_demand(table: &Table, bytes: &[u8]) -> Result<Demand, Vec<Violation>> {
    let node = Node::parse(bytes).map_err(|violation| vec![violation])?;
    let mut violations = Vec::new();
    let demand = demand_in(&mut Reader::new(&mut violations), &node, table).unwrap_or_default();
    if violations.is_empty() { Ok(demand) } else { Err(violations) }
}

/// Reads the demand from a node of a larger document.
pub(crate) fn demand_in(reader: &mut Reader<'_>, node: &Node, table: &Table) -> Option<Demand> {
    let mut demand = Demand::new();
    for (name, node) in reader.entries(node)? {
        let reader = &mut reader.at(name);
        let Some(service) = table.service_named(name) else {
            let names: Vec<&str> = table.services().iter().map(|service| service.id.as_str()).collect();
            let hint = nearest(name, &names).map(|name| format!("; did you mean {name:?}?"));
            reader.fail::<()>(format!("is no service of the rules{}", hint.unwrap_or_default()));
            continue;
        };
        for (code, node) in reader.entries(node).unwrap_or_default() {
            let reader = &mut reader.at(code);
            let country = match code {
                "unknown" => None,
                _ => match CountryCode::parse(code) {
                    Some(country) => Some(country),
                    None => {
                        reader.fail::<()>("is no country; write an ISO 3166-1 code such as \"DE\", or \"unknown\"");
                        continue;
                    }
                },
            };
            demand.extend(amount(reader, node).map(|amount| ((service, country), amount)));
        }
    }
    Some(demand)
}

/// Reads a number of requests in flight. The mean of a small country may be less than 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range was checked
fn amount(reader: &mut Reader<'_>, node: &Node) -> Option<Amount> {
    let number = reader.number(node)?;
    if !(0.0..=MAX).contains(&number) {
        return reader.fail(format!("is {number}; write how many requests are in flight at the peak, from 0 to {MAX}"));
    }
    Some(libm::round(number * 1_000.0) as Amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "regions": { "fra": { "countries": ["DE"] } },
                  "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                          "residency": [{ "clients": ["*"], "process_in": ["*"] }] } } }"#,
        )
        .unwrap()
    }

    #[test]
    fn requests_are_read_by_service_and_country() {
        let demand = read_demand(&table(), br#"{ "chat": { "DE": 120, "unknown": 0.5 } }"#).unwrap();
        let amounts: Vec<_> = demand.into_iter().map(|((_, country), amount)| (country, amount)).collect();
        assert_eq!(amounts, [(None, 500), (CountryCode::parse("DE"), 120_000)]);
    }

    #[test]
    fn every_mistake_is_returned_with_its_json_pointer() {
        let text = br#"{ "chta": {}, "chat": { "UK": 1, "DE": -1, "FR": "many", "GB": 1e300, "IT": 1, "IT": 2 } }"#;
        let mistakes: Vec<String> = read_demand(&table(), text).unwrap_err().iter().map(ToString::to_string).collect();
        let expected = [
            "/chta: is no service of the rules; did you mean \"chat\"?",
            "/chat/IT: stands twice",
            "/chat/UK: is no country",
            "/chat/DE: is -1; write",
            "/chat/FR: is a string; write a number",
            "/chat/GB: is 1",
        ];
        for (mistake, expected) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(expected), "{mistake}");
        }
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
        for broken in [&b"["[..], b"[]", b"7", b"{\"chat\": []}", b"\xff"] {
            assert!(read_demand(&table(), broken).is_err());
        }
    }
}
