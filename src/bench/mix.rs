//! Which operations are sent, and how often each.

use std::str::FromStr;

use rand::{Rng, RngExt};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Add,
    Get,
    Clear,
}

impl Operation {
    pub const ALL: [Self; 3] = [Self::Add, Self::Get, Self::Clear];

    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add_value",
            Self::Get => "get_value",
            Self::Clear => "clear_key",
        }
    }
}

/// The share of each operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    weights: [u32; Operation::ALL.len()],
}

/// Weights are shares; more than this is a slip of the pen, and their sum must not overflow.
const WEIGHT_MAX: u32 = 1_000_000;

impl Mix {
    pub fn only(operation: Operation) -> Self {
        let mut weights = [0; Operation::ALL.len()];
        weights[operation as usize] = 1;
        Self { weights }
    }

    /// As many gets as adds.
    pub fn half_and_half() -> Self {
        Self { weights: [1, 1, 0] }
    }

    pub fn holds(&self, operation: Operation) -> bool {
        self.weights[operation as usize] > 0
    }

    pub fn pick(&self, random: &mut impl Rng) -> Operation {
        let [add, get, clear] = self.weights;
        // A run of one kind needs no randomness.
        if get + clear == 0 {
            return Operation::Add;
        }
        let at = random.random_range(0..(add + get + clear).max(1));
        if at < add {
            Operation::Add
        } else if at < add + get {
            Operation::Get
        } else {
            Operation::Clear
        }
    }
}

/// `add=50,get=45,clear=5`.
impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0; Operation::ALL.len()];
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not an operation and its share, such as add=50"))?;
            let operation = match name.trim() {
                "add" => Operation::Add,
                "get" => Operation::Get,
                "clear" => Operation::Clear,
                other => return Err(format!("there is no operation {other:?}; there are add, get and clear")),
            };
            weights[operation as usize] = weight
                .trim()
                .parse()
                .ok()
                .filter(|weight| *weight <= WEIGHT_MAX)
                .ok_or_else(|| format!("{weight:?} is not a share: write a number from 0 to {WEIGHT_MAX}"))?;
        }
        if weights.iter().sum::<u32>() == 0 {
            return Err("all shares are 0".to_owned());
        }
        Ok(Self { weights })
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn operations_come_in_the_shares_asked_for() {
        let mix: Mix = "add=50,get=45,clear=5".parse().unwrap();
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut counts = [0; 3];
        for _ in 0..100_000 {
            counts[mix.pick(&mut random) as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip([50_000, 45_000, 5_000]) {
            assert!(i32::abs_diff(count, share) < 1_000, "{counts:?}");
        }
    }

    #[test]
    fn a_single_operation_is_all_there_is() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for operation in Operation::ALL {
            let mix = Mix::only(operation);
            assert!((0..100).all(|_| mix.pick(&mut random) == operation));
            assert!(
                Operation::ALL
                    .into_iter()
                    .all(|other| mix.holds(other) == (other == operation))
            );
        }
    }

    #[test]
    fn a_mix_that_makes_no_sense_is_refused_by_name() {
        for (text, part) in [
            ("add", "\"add\""),
            ("put=1", "\"put\""),
            ("add=x", "\"x\""),
            ("add=-1", "\"-1\""),
            ("add=0,get=0", "all shares"),
            ("add=4000000000", "4000000000"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
