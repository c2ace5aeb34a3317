//! Numbers that users give as such or in percents.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number, or the percents of `of`, rounded up or down. Nonsense counts as 0.
pub(crate) fn scaled(value: &IntOrString, of: i32, up: bool) -> i32 {
    let percent = match value {
        IntOrString::Int(n) => return *n,
        IntOrString::String(text) => {
            text.strip_suffix('%').and_then(|t| t.parse::<i64>().ok()).unwrap_or(0)
        }
    };
    let product = percent * i64::from(of);
    let whole = if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
    i32::try_from(whole).unwrap_or(i32::MAX)
}
