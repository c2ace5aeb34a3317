//! When the CA's ConfigMap is written.

use super::plan::plan;

#[test]
fn it_is_made_mended_and_left_alone() {
    let made = plan("n", "PEM", None).unwrap();
    assert_eq!(made.data.as_ref().unwrap()["ca.crt"], "PEM");
    assert_eq!(plan("n", "PEM", Some(&made)), None);
    let mut broken = made.clone();
    broken.data = None;
    assert_eq!(plan("n", "PEM", Some(&broken)), Some(made));
}
