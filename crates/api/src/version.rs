//! Kubernetes' order of API versions (apimachinery `CompareKubeAwareVersionStrings`).

use std::cmp::Ordering;

/// Stability, then major and minor number.
type Parsed = (u8, u64, u64);

/// Orders versions with the most stable and newest first: `v2`, `v1`, `v2beta1`, `v1alpha1`, and then
/// all others by name.
pub fn compare(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

fn parse(version: &str) -> Option<Parsed> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (major, rest) = rest.split_at(digits);
    let major = number(major)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((stability, major, number(minor)?))
}

/// A number without leading zeros.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_ordered_by_stability_and_number() {
        let sorted = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
            "v01",
            "v1gamma1",
            "v2beta",
        ];
        let mut mixed = sorted;
        mixed.reverse();
        mixed.sort_by(|a, b| super::compare(a, b));
        assert_eq!(mixed, sorted);
    }
}
