//! Parameters of storage classes and of volume attributes classes.

use std::collections::BTreeMap;

use grpc::server::Status;

use crate::errors::invalid;
use crate::state::Allocation;

/// `thin` (default): blocks are taken when they are written. `thick`: when the volume is made.
const ALLOCATION: &str = "allocation";
/// What Kubernetes' controllers add: names of claims and snapshots.
const KUBERNETES: &str = "csi.storage.k8s.io/";

/// The allocation that parameters ask for. Unknown parameters are refused: they are misspelt, or meant for
/// another driver.
pub(super) fn allocation(of: &BTreeMap<String, String>) -> Result<Option<Allocation>, Status> {
    let mut asked = None;
    for (key, value) in of.iter().filter(|(key, _)| !key.starts_with(KUBERNETES)) {
        asked = match (key.as_str(), value.as_str()) {
            (ALLOCATION, "thin") => Some(Allocation::Thin),
            (ALLOCATION, "thick") => Some(Allocation::Thick),
            (ALLOCATION, _) => {
                let why = format!("parameter {ALLOCATION:?}: {value:?} is neither thin nor thick");
                return Err(invalid(why));
            }
            _ => return Err(unknown(key)),
        };
    }
    Ok(asked)
}

/// For requests that have no parameters here.
pub(super) fn none(of: &BTreeMap<String, String>) -> Result<(), Status> {
    match of.keys().find(|key| !key.starts_with(KUBERNETES)) {
        Some(key) => Err(unknown(key)),
        None => Ok(()),
    }
}

fn unknown(key: &str) -> Status {
    invalid(format!("parameter {key:?} is unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Allocation>, String> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        allocation(&map).map_err(|status| status.message)
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("csi.storage.k8s.io/pvc/name", "x")]), Ok(None));
        assert_eq!(of(&[("allocation", "thick")]), Ok(Some(Allocation::Thick)));
        assert_eq!(of(&[("alocation", "thick")]), Err("parameter \"alocation\" is unknown".into()));
        assert!(of(&[("allocation", "Thick")]).is_err());
    }
}
