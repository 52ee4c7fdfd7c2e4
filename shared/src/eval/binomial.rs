//! The binomial distribution, summed term by term. Takes trials, successes and a chance; returns probabilities. Called
//! by [`super::pairs`]; [`super::compare`] and [`super::scores`] use [`number`]. Sums rather than continued fractions,
//! so that 100,000 trials are as exact as ten.

use libm::{exp, lgamma, log, log1p};

/// A term that is smaller than this part of the sum ends it.
const NEGLIGIBLE: f64 = 1e-18;

/// A count as a number.
pub(super) fn number(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let number = count as f64;
    number
}

/// The binomial distributions of up to a given number of trials.
pub(super) struct Binomials {
    /// The logarithms of the factorials.
    factorials: Vec<f64>,
}

impl Binomials {
    /// Those of at most `n` trials.
    pub(super) fn up_to(n: u64) -> Self {
        Self { factorials: (0..=n).map(|k| lgamma(number(k) + 1.0)).collect() }
    }

    fn factorial(&self, k: u64) -> f64 {
        let tabulated = usize::try_from(k).ok().and_then(|place| self.factorials.get(place));
        tabulated.copied().unwrap_or_else(|| lgamma(number(k) + 1.0))
    }

    /// The chance of exactly `k` successes in `n` trials.
    pub(super) fn mass(&self, n: u64, k: u64, chance: f64) -> f64 {
        if k > n {
            return 0.0;
        }
        match chance {
            none if none <= 0.0 => return f64::from(u8::from(k == 0)),
            all if all >= 1.0 => return f64::from(u8::from(k == n)),
            _ => {}
        }
        let ways = self.factorial(n) - self.factorial(k) - self.factorial(n - k);
        exp(ways + number(k) * log(chance) + number(n - k) * log1p(-chance))
    }

    /// The chance of at most `k` successes in `n` trials.
    pub(super) fn at_most(&self, n: u64, k: u64, chance: f64) -> f64 {
        if k >= n || chance <= 0.0 {
            return 1.0;
        }
        if chance >= 1.0 {
            return 0.0;
        }
        let odds = chance / (1.0 - chance);
        // The tail that doesn't hold the mean is summed, from its largest term on.
        if number(k) <= number(n) * chance {
            let (mut term, mut sum, mut at) = (self.mass(n, k, chance), 0.0, k);
            loop {
                sum += term;
                if at == 0 || term <= sum * NEGLIGIBLE {
                    return f64::min(sum, 1.0);
                }
                term *= number(at) / (number(n - at + 1) * odds);
                at -= 1;
            }
        }
        let (mut term, mut sum, mut at) = (self.mass(n, k + 1, chance), 0.0, k + 1);
        loop {
            sum += term;
            if at == n || term <= sum * NEGLIGIBLE {
                return f64::max(1.0 - sum, 0.0);
            }
            term *= number(n - at) * odds / number(at + 1);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_equal_those_of_pascals_triangle() {
        // Rows of Pascal's triangle, exact in integers; chances are tenths.
        let binomials = Binomials::up_to(20);
        let mut row: Vec<u128> = vec![1];
        for n in 1..=20_u64 {
            let mut next = vec![1];
            next.extend(row.windows(2).map(|pair| pair[0] + pair[1]));
            next.push(1);
            row = next;
            for tenths in 0..=10_u128 {
                let mut sum = 0_u128;
                for (k, ways) in (0_u32..).zip(&row) {
                    let others = u32::try_from(n).unwrap() - k;
                    sum += ways * tenths.pow(k) * (10 - tenths).pow(others);
                    let exact = sum as f64 / 10_f64.powi(i32::try_from(n).unwrap());
                    let found = binomials.at_most(n, u64::from(k), tenths as f64 / 10.0);
                    assert!((found - exact).abs() < 1e-12, "{n} {k} {tenths}: {found} {exact}");
                }
            }
        }
        // Poisson's limit, far out: the chance of none of a million at one in a million is 1/e.
        assert!((binomials.at_most(1_000_000, 0, 1e-6) - exp(-1.0)).abs() < 1e-6);
        assert!((Binomials::up_to(100_000).at_most(100_000, 50_000, 0.5) - 0.501_261_56).abs() < 1e-6);
    }
}
