//! The queries of the last week in the form in which a file keeps them. Takes [`Traffic`], returns bytes, and the
//! reverse. Called by a node every few minutes, before it ends, and when it starts.

use serde::{Deserialize, Serialize};

use super::{AddressSource, Bucket, KEPT, Key, LONGEST, MOST_ENTRIES, Names, Traffic};
use crate::geo::CountryCode;
use crate::time::{Millis, Timestamp};

/// The whole file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrafficFile {
    services: Vec<String>,
    regions: Vec<String>,
    /// The oldest first.
    buckets: Vec<KeptBucket>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptBucket {
    from: Timestamp,
    seconds: u64,
    counts: Vec<KeptCount>,
}

/// The position of the service's name, that of the region's name, the country, the source, and the number of queries.
type KeptCount = (u16, Option<u16>, Option<String>, AddressSource, u64);

impl Traffic {
    /// The bytes to keep.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = |(key, queries): &(Key, u64)| -> KeptCount {
            let country = key.country.map(|country| country.to_string());
            (key.service, key.region.checked_sub(1), country, key.source, *queries)
        };
        let bucket = |bucket: &Bucket| KeptBucket {
            from: bucket.from,
            seconds: bucket.span.0 / 1_000,
            counts: bucket.counts.iter().map(count).collect(),
        };
        let (services, regions) = (self.services.all.clone(), self.regions.all.clone());
        let file = TrafficFile { services, regions, buckets: self.buckets.iter().map(bucket).collect() };
        serde_json::to_vec(&file).unwrap_or_default()
    }

    /// Reads kept bytes. Buckets that are older than a week or begin after `now` are left out.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(bytes: &[u8], now: Timestamp) -> Result<Self, String> {
        let file: TrafficFile =
            serde_json::from_slice(bytes).map_err(|error| format!("isn't what was kept: {error}"))?;
        let (services, regions) = (Names::of(file.services)?, Names::of(file.regions)?);
        let count = |(service, region, country, source, queries): KeptCount| {
            let is_known = usize::from(service) < services.all.len()
                && region.is_none_or(|region| usize::from(region) < regions.all.len());
            if !is_known {
                return Err("names a service or a region that it doesn't list".to_owned());
            }
            let country = country.map(|code| CountryCode::parse(&code).ok_or(format!("{code:?} is no country")));
            let region = region.map_or(0, |region| region.saturating_add(1));
            Ok((Key { service, region, country: country.transpose()?, source }, queries))
        };
        let bucket = |bucket: KeptBucket| {
            let counts = bucket.counts.into_iter().map(count).collect::<Result<Vec<_>, String>>()?;
            let span = Millis(bucket.seconds.saturating_mul(1_000));
            // The counts are put in order, each key once.
            Ok(Bucket { from: bucket.from, span, counts: super::merged(Vec::new(), counts) })
        };
        let buckets = file.buckets.into_iter().map(bucket).collect::<Result<Vec<Bucket>, String>>()?;
        let is_in_order = buckets.is_sorted_by(|bucket, next| bucket.end() <= next.from);
        if !is_in_order || buckets.iter().any(|bucket| bucket.span > LONGEST) {
            return Err("its buckets overlap, or are too long".to_owned());
        }
        let mut traffic = Self { services, regions, buckets: buckets.into() };
        traffic.buckets.retain(|bucket| bucket.from <= now && bucket.end().after(KEPT) > now);
        while traffic.entries() > MOST_ENTRIES && traffic.buckets.len() > 1 {
            traffic.shrink();
        }
        Ok(traffic)
    }
}

impl Names {
    /// Names in the order of their numbers.
    fn of(all: Vec<String>) -> Result<Self, String> {
        let number = |(number, name): (usize, &String)| Some((name.clone(), u16::try_from(number).ok()?));
        let known: Option<std::collections::BTreeMap<String, u16>> = all.iter().enumerate().map(number).collect();
        match known {
            Some(known) if known.len() == all.len() && all.len() <= super::MOST_NAMES + 1 => Ok(Self { all, known }),
            _ => Err("lists too many names, or one twice".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUCKET, QueryLabels};
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn some() -> Traffic {
        let mut traffic = Traffic::default();
        let of = |service, country: &str, region| QueryLabels {
            service,
            country: CountryCode::parse(country),
            region,
            source: AddressSource::Ecs,
        };
        let counted = [(of("chat", "DE", Some("fra")), 7), (of("chat", "", None), 2), (of("embed", "FR", None), 1)];
        traffic.add(NOW, counted);
        traffic.add(
            NOW.after(BUCKET),
            [(QueryLabels { source: AddressSource::Resolver, ..of("chat", "MT", Some("par")) }, 5)],
        );
        traffic
    }

    #[test]
    fn what_is_kept_comes_back_and_counts_on() {
        let (mut traffic, now) = (some(), NOW.after(BUCKET));
        let mut again = Traffic::read(&traffic.to_bytes(), now).unwrap();
        for one in [&mut traffic, &mut again] {
            one.add(
                now,
                [(QueryLabels { service: "new", country: None, region: Some("fra"), source: AddressSource::Ecs }, 3)],
            );
        }
        for apart in [false, true] {
            let report = |traffic: &Traffic| traffic.report(now, NOW, None, apart);
            assert_eq!(report(&again), report(&traffic));
            assert_eq!(report(&again).counts.iter().map(|count| count.queries).sum::<u64>(), 18);
        }
    }

    #[test]
    fn what_is_older_than_a_week_or_lies_ahead_is_left_out() {
        let bytes = some().to_bytes();
        let queries = |now| -> u64 {
            let traffic = Traffic::read(&bytes, now).unwrap();
            traffic.report(now, Timestamp(0), None, false).counts.iter().map(|count| count.queries).sum()
        };
        assert_eq!(queries(NOW), 10, "the clock was set back by a bucket");
        assert_eq!(queries(NOW.after(KEPT)), 15);
        assert_eq!(queries(NOW.after(KEPT).after(BUCKET)), 5);
        assert_eq!(queries(NOW.after(KEPT).after(BUCKET).after(BUCKET)), 0);
    }

    #[test]
    fn bytes_that_are_wrong_or_cut_are_an_error() {
        let good = String::from_utf8(some().to_bytes()).unwrap();
        for length in 0..good.len() {
            assert!(Traffic::read(&good.as_bytes()[..length], NOW).is_err());
        }
        for (old, new, why) in [
            ("\"seconds\":300", "\"seconds\":99999999", "too long"),
            ("\"seconds\":300", "\"seconds\":3000", "overlap"),
            ("[0,0,", "[0,9,", "doesn't list"),
            ("[0,0,", "[9,0,", "doesn't list"),
            ("\"DE\"", "\"Germany\"", "no country"),
            ("\"embed\"", "\"chat\"", "one twice"),
            ("\"services\"", "\"servants\"", "isn't what was kept"),
        ] {
            assert!(good.contains(old), "{old} isn't in {good}");
            let error = Traffic::read(good.replacen(old, new, 1).as_bytes(), NOW).unwrap_err();
            assert!(error.contains(why), "{new}: {error}");
        }
    }
}
