//! Which keys are used, and how often each.

use std::str::FromStr;

use rand::{Rng, RngExt};
use rand_distr::{Distribution as _, Zipf};

/// The skew that benchmarks of key-value stores commonly use.
const THETA_DEFAULT: f64 = 0.99;
/// Beyond this, practically every request is for one key.
const THETA_MAX: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    Uniform,
    /// Key number k is used in proportion to `1 / k^theta`.
    Zipf {
        theta: f64,
    },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let theta = match text.split_once(':') {
            None if text == "uniform" => return Ok(Self::Uniform),
            None if text == "zipf" => return Ok(Self::Zipf { theta: THETA_DEFAULT }),
            Some(("zipf", theta)) => theta,
            _ => return Err("write uniform, zipf or zipf:THETA".to_owned()),
        };
        match theta.parse::<f64>() {
            Ok(theta) if (0.0..=THETA_MAX).contains(&theta) => Ok(Self::Zipf { theta }),
            _ => Err(format!("{theta:?} is not a skew: write a number from 0 to {THETA_MAX}")),
        }
    }
}

/// Draws the numbers of keys, from 0.
#[derive(Debug, Clone)]
pub struct KeyPicker {
    keys: u64,
    zipf: Option<Zipf<f64>>,
}

impl KeyPicker {
    pub fn new(keys: u64, distribution: Distribution) -> Self {
        let keys = keys.max(1);
        let zipf = match distribution {
            Distribution::Uniform => None,
            // Fails for no key or a negative skew alone, and the parser lets neither through.
            Distribution::Zipf { theta } => Zipf::new(keys as f64, theta).ok(),
        };
        Self { keys, zipf }
    }

    pub fn pick(&self, random: &mut impl Rng) -> u64 {
        match &self.zipf {
            None => random.random_range(0..self.keys),
            Some(zipf) => (zipf.sample(random) as u64).saturating_sub(1).min(self.keys - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    const DRAWS: u32 = 200_000;

    fn counts(keys: u64, distribution: Distribution) -> Vec<u32> {
        let picker = KeyPicker::new(keys, distribution);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut counts = vec![0; keys as usize];
        for _ in 0..DRAWS {
            counts[picker.pick(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_used_alike() {
        let expected = f64::from(DRAWS) / 100.0;
        for count in counts(100, Distribution::Uniform) {
            assert!((f64::from(count) - expected).abs() < 6.0 * expected.sqrt(), "{count}");
        }
    }

    #[test]
    fn zipf_keys_are_used_in_proportion_to_a_power_of_their_rank() {
        let theta = 0.99;
        let counts = counts(1000, Distribution::Zipf { theta });
        let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-theta)).sum();
        for rank in [1_usize, 2, 5, 10, 100] {
            let expected = f64::from(DRAWS) * (rank as f64).powf(-theta) / sum;
            let count = f64::from(counts[rank - 1]);
            assert!(
                (count - expected).abs() < 6.0 * expected.sqrt(),
                "rank {rank}: {count} for {expected}"
            );
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_keys() {
        for distribution in [Distribution::Uniform, Distribution::Zipf { theta: 1.0 }] {
            assert_eq!(counts(50, distribution), counts(50, distribution));
        }
    }

    #[test]
    fn a_single_key_is_always_the_one() {
        for distribution in [Distribution::Uniform, Distribution::Zipf { theta: 0.99 }] {
            assert_eq!(counts(1, distribution), [DRAWS]);
        }
    }

    #[test]
    fn distributions_are_read_from_their_names() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf".parse(), Ok(Distribution::Zipf { theta: THETA_DEFAULT }));
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf { theta: 1.2 }));
        for text in ["", "zipfian", "zipf:", "zipf:x", "zipf:-1", "zipf:NaN", "uniform:1"] {
            text.parse::<Distribution>().expect_err(text);
        }
    }
}
