//! Takes the name or network of a client, returns its [`Point`]: a number that decides which share of a plan the client
//! belongs to. Called before a client's region is looked up in a plan.

use crate::rules::Ratio;
use crate::table::RegionIndex;

/// The number of buckets that DNS divides all points into. DNS keeps one answer per bucket.
pub const BUCKETS: u32 = 64;

/// The position of a client on a line from 0 to 1, in millionths. The position doesn't depend on the shares. So when a
/// share grows, more clients are moved, and all clients that were moved before keep their region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Point(u32);

/// The length of the line.
const LINE: u32 = Ratio::ONE.0;

impl Point {
    /// The point of a client. `client` is any name of the client, such as its prefix, or its tenant and session. `home`
    /// is its home region: points at different homes differ, so that not the same clients are moved everywhere.
    ///
    /// ```
    /// use bailiwick_rules::load::Point;
    /// assert_eq!(Point::of(b"198.51.100.0/24", "eu-frankfurt"), Point::of(b"198.51.100.0/24", "eu-frankfurt"));
    /// assert_ne!(Point::of(b"198.51.100.0/24", "eu-frankfurt"), Point::of(b"198.51.100.0/24", "eu-paris"));
    /// ```
    #[must_use]
    pub fn of(client: &[u8], home: &str) -> Self {
        // FNV alone gives short names similar high bits.
        Self::at(mix(fnv(client.iter().chain(&[0xff]).chain(home.as_bytes()))))
    }

    /// The point of a network's clients, from the bits of its prefix and their number. DNS calls this for each query,
    /// so the function takes only a few instructions.
    ///
    /// ```
    /// use bailiwick_rules::load::{Home, Point};
    /// let frankfurt = Home::named("eu-frankfurt");
    /// assert_eq!(Point::of_network(0x00c6_3364, 24, frankfurt), Point::of_network(0x00c6_3364, 24, frankfurt));
    /// assert_ne!(Point::of_network(0x00c6_3364, 24, frankfurt), Point::of_network(0x00c6_3365, 24, frankfurt));
    /// ```
    #[must_use]
    pub fn of_network(prefix: u64, length: u8, home: Home) -> Self {
        // The length is stored in the highest bits, which no prefix uses.
        Self::at(mix(mix(prefix ^ u64::from(length) << 56).wrapping_add(home.0)))
    }

    /// The point that a hash gives.
    #[allow(clippy::cast_possible_truncation)] // below a million
    fn at(hash: u64) -> Self {
        Self(((u128::from(hash) * u128::from(LINE)) >> 64) as u32)
    }

    /// Whether this point is one of the first `share` of all points.
    #[must_use]
    pub fn is_within(self, share: Ratio) -> bool {
        self.0 < share.0
    }

    /// The bucket in which this point lies, from 0.
    #[must_use]
    pub fn bucket(self) -> u32 {
        self.0 * BUCKETS / LINE
    }

    /// The middle of a bucket, which stands for all clients in it.
    #[must_use]
    pub fn of_bucket(bucket: u32) -> Self {
        let width = LINE / BUCKETS;
        Self(bucket.min(BUCKETS - 1) * width + width / 2)
    }

    /// The region that the shares of a class give this point; `None` if the client isn't moved.
    pub(crate) fn on(self, shares: impl IntoIterator<Item = (RegionIndex, Ratio)>) -> Option<RegionIndex> {
        let mut end = 0_u32;
        shares.into_iter().find_map(|(to, share)| {
            end = end.saturating_add(share.0);
            (self.0 < end).then_some(to)
        })
    }
}

/// The hashed name of a home region, for [`Point::of_network`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home(u64);

impl Home {
    /// The home of this name.
    #[must_use]
    pub fn named(region: &str) -> Self {
        Self(mix(fnv(region.as_bytes())))
    }
}

/// The 64-bit FNV-1a hash.
fn fnv<'b>(bytes: impl IntoIterator<Item = &'b u8>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The last step of SplitMix64: every bit of the result depends on every bit of the number.
fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(shares: &[u32]) -> Vec<(RegionIndex, Ratio)> {
        (1..).zip(shares).map(|(to, share)| (RegionIndex(to), Ratio(*share))).collect()
    }

    fn points() -> impl Iterator<Item = Point> {
        (0..20_000_u32).map(|n| Point::of(format!("198.51.{}.{}", n / 256, n % 256).as_bytes(), "fra"))
    }

    #[test]
    fn points_are_spread_evenly() {
        let mut counts = [0_u32; BUCKETS as usize];
        for point in points() {
            counts[point.bucket() as usize] += 1;
        }
        // 312 points are expected in each bucket; the limits are over five standard deviations away.
        assert!(counts.iter().all(|count| (220..410).contains(count)), "{counts:?}");
    }

    #[test]
    fn neighbouring_networks_are_spread_evenly_and_differently_at_each_home() {
        let (fra, par) = (Home::named("eu-frankfurt"), Home::named("eu-paris"));
        for (first, length) in [(0x00c6_3300_u64, 24), (0x2001_0db8_0000, 48)] {
            let mut counts = [0_u32; BUCKETS as usize];
            let mut alike = 0;
            for network in (0..20_000).map(|n| first + n) {
                let point = Point::of_network(network, length, fra);
                counts[point.bucket() as usize] += 1;
                alike += u32::from(point.bucket() == Point::of_network(network, length, par).bucket());
            }
            assert!(counts.iter().all(|count| (220..410).contains(count)), "{counts:?}");
            assert!((220..410).contains(&alike), "{alike} of 20,000 networks have the same bucket at both homes");
        }
        assert_ne!(Point::of_network(0x00c6_3364, 24, fra), Point::of_network(0x00c6_3364, 48, fra));
    }

    #[test]
    fn a_growing_share_only_adds_clients() {
        let (before, after) = (shares(&[100_000, 50_000]), shares(&[100_000, 250_000, 10_000]));
        let changed = points().filter(|point| point.on(before.clone()) != point.on(after.clone()));
        let mut added = 0;
        for point in changed {
            assert_eq!(point.on(before.clone()), None, "a client that was moved before has another region now");
            added += 1;
        }
        assert!((3_900..4_500).contains(&added), "{added} of 20,000 for a share of 21 %");
    }

    #[test]
    fn changed_shares_move_only_the_clients_between_old_and_new_boundaries() {
        let (before, after) = (shares(&[100_000, 300_000]), shares(&[160_000, 200_000]));
        let changed = points().filter(|point| point.on(before.clone()) != point.on(after.clone())).count();
        assert!((1_800..2_200).contains(&changed), "{changed} of 20,000: 6 % at the first boundary, 4 % at the second");
    }

    #[test]
    fn every_bucket_has_the_middle_of_its_points() {
        for bucket in 0..BUCKETS {
            assert_eq!(Point::of_bucket(bucket).bucket(), bucket);
        }
        assert_eq!(Point::of_bucket(u32::MAX).bucket(), BUCKETS - 1);
    }

    #[test]
    fn the_same_client_has_the_same_point_everywhere() {
        let known = [("acme/session-1", "fra", 600751), ("", "", 309291)];
        for (client, home, expected) in known {
            assert_eq!(Point::of(client.as_bytes(), home).0, expected, "{client}");
        }
        let known = [(0x00c6_3364, 24, "fra", 812719), (0x2001_0db8_0001, 48, "fra", 541399), (0, 24, "", 492874)];
        for (prefix, length, home, expected) in known {
            assert_eq!(Point::of_network(prefix, length, Home::named(home)).0, expected, "{prefix:x}/{length}");
        }
    }
}
