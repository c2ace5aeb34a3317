//! Fields of configuration files, as Go reads them.

use serde::{Deserialize, Deserializer};

/// Null is as good as absent.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
