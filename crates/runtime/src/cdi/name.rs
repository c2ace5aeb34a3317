//! Names of CDI devices: `vendor/class=name`.

fn ends_well(name: &str, first: impl Fn(char) -> bool, more: &[char]) -> bool {
    let Some(start) = name.chars().next() else { return false };
    let inside = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
    first(start)
        && name.chars().all(|c| inside(c) || c == start)
        && name.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric())
}

/// `vendor/class`.
pub(super) fn check_kind(kind: &str) -> Result<(), String> {
    let part = |name: &str| ends_well(name, |c| c.is_ascii_alphabetic(), &['_', '-', '.']);
    match kind.split_once('/') {
        Some((vendor, class)) if part(vendor) && part(class) => Ok(()),
        _ => Err(format!("invalid vendor/class {kind:?} in Spec")),
    }
}

/// A device's name in its spec.
pub(super) fn check_device(name: &str) -> Result<(), String> {
    match ends_well(name, |c| c.is_ascii_alphanumeric(), &['_', '-', '.', ':']) {
        true => Ok(()),
        false => Err(format!("invalid device name {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for kind in ["vendor.com/gpu", "v/c", "a_b-c.d/x9"] {
            assert_eq!(check_kind(kind), Ok(()), "{kind}");
        }
        for kind in ["", "gpu", "/gpu", "v/", "9v/c", "v-/c", "v/c=d", "v/c/d"] {
            assert!(check_kind(kind).is_err(), "{kind}");
        }
        for name in ["0", "gpu0", "a:b.c-d_e"] {
            assert_eq!(check_device(name), Ok(()), "{name}");
        }
        for name in ["", "-a", "a-", "a b", "a/b"] {
            assert!(check_device(name).is_err(), "{name}");
        }
    }
}
