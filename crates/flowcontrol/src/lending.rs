//! Who gets how many seats: what each level needs, within what it must keep and may borrow
//! (KEP-1040 "Dispatching", upstream's `computeConcurrencyAllocation`).

/// One level's part of the problem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Need {
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// What it would use, or what it is given when nobody wants anything.
    pub(crate) target: f64,
}

/// Steps of the search: doubles have no more.
const STEPS: u32 = 64;

/// Seats for each, such that all get the same part of their target, within their bounds, and `total` is used up
/// where the bounds allow that.
pub(crate) fn share(needs: &[Need], total: f64) -> Vec<f64> {
    let at = |part: f64| -> Vec<f64> {
        needs
            .iter()
            .map(|need| (need.target * part).clamp(need.least, need.most.max(need.least)))
            .collect()
    };
    let used = |part: f64| at(part).iter().sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    while used(high) < total && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        match used(middle) > total {
            true => high = middle,
            false => low = middle,
        }
    }
    at(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(least: f64, most: f64, target: f64) -> Need {
        Need { least, most, target }
    }

    #[test]
    fn seats_go_to_who_needs_them_within_the_bounds() {
        let shares = share(&[need(5.0, 100.0, 5.0), need(10.0, 100.0, 60.0)], 65.0);
        assert!((shares[0] - 5.0).abs() < 1e-6 && (shares[1] - 60.0).abs() < 1e-6, "{shares:?}");
        // Nobody falls below what it keeps, whatever the others want.
        let shares = share(&[need(20.0, 100.0, 1.0), need(0.0, 100.0, 500.0)], 60.0);
        assert!((shares[0] - 20.0).abs() < 1e-6 && (shares[1] - 40.0).abs() < 1e-6, "{shares:?}");
        // Nobody borrows more than it may.
        let shares = share(&[need(0.0, 10.0, 50.0), need(0.0, 100.0, 10.0)], 60.0);
        assert!((shares[0] - 10.0).abs() < 1e-6, "{shares:?}");
        // More is kept than there is: everybody keeps it.
        assert_eq!(share(&[need(5.0, 5.0, 1.0), need(5.0, 5.0, 1.0)], 6.0), [5.0, 5.0]);
    }
}
