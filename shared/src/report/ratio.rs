//! Reads and writes a [`Ratio`] as a JSON number, where 1 is the whole. Used by the reports' types.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rules::Ratio;

pub(super) fn serialize<S: Serializer>(ratio: &Ratio, serializer: S) -> Result<S::Ok, S::Error> {
    (f64::from(ratio.0) / f64::from(Ratio::ONE.0)).serialize(serializer)
}

/// Rounds to a millionth, so that a ratio that was written and is read again is the same to the bit.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range was checked
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ratio, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let millionths = libm::round(number * f64::from(Ratio::ONE.0));
    if (0.0..=f64::from(u32::MAX)).contains(&millionths) {
        Ok(Ratio(millionths as u32))
    } else {
        Err(serde::de::Error::custom(format!("{number} is no share or load; write a number from 0")))
    }
}

/// The same for a ratio that may be missing.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::rules::Ratio;

    pub(in crate::report) fn serialize<S: Serializer>(ratio: &Option<Ratio>, serializer: S) -> Result<S::Ok, S::Error> {
        match ratio {
            Some(ratio) => super::serialize(ratio, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::report) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Ratio>, D::Error> {
        #[derive(Deserialize)]
        struct Whole(#[serde(with = "super")] Ratio);
        Ok(Option::<Whole>::deserialize(deserializer)?.map(|Whole(ratio)| ratio))
    }
}
