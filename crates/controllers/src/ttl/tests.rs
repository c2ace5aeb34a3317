//! The time by the number of nodes.

use super::plan::Step;

#[test]
fn steps_overlap() {
    let start = Step::default();
    let seconds = |nodes| start.with(nodes).seconds();
    assert_eq!(
        [1, 100, 101, 500, 501, 1001, 2001, 150_000].map(seconds),
        [0, 0, 15, 15, 30, 60, 300, 300]
    );
    let grown = start.with(101);
    assert_eq!([100, 90, 89].map(|nodes| grown.with(nodes).seconds()), [15, 15, 0]);
}
