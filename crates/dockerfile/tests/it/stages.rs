//! Stages: names, arguments, what a target needs.

use std::collections::BTreeMap;

use dockerfile::{Base, File};

fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

const TEXT: &str = "ARG V=1\nARG IMG=base:$V\nFROM $IMG AS One\nFROM scratch AS unused\nRUN x\n\
    FROM one AS two\nCOPY --from=0 /a /b\nFROM other\nRUN --mount=from=two,target=/t true\n";

#[test]
fn only_what_a_target_needs_is_built() {
    let file = File::parse("f", TEXT.as_bytes()).unwrap();
    let arguments = file.global_arguments(&BTreeMap::new(), &map(&[("V", "2")])).unwrap();
    assert_eq!(file.base(0, &arguments).unwrap(), Base::Image("base:2".to_owned()));
    assert_eq!(file.base(1, &arguments).unwrap(), Base::Scratch);
    assert_eq!(file.base(2, &arguments).unwrap(), Base::Stage(0));
    let needed = |name| {
        let target = file.target(name).unwrap();
        file.needed(target, &arguments).unwrap().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(needed(None), [0, 2, 3]);
    assert_eq!(needed(Some("TWO")), [0, 2]);
    assert_eq!(needed(Some("1")), [1]);
}

#[test]
fn unknown_targets_and_blank_bases_are_refused() {
    let file = File::parse("f", TEXT.as_bytes()).unwrap();
    let error = file.target(Some("tow")).unwrap_err().to_string();
    assert!(error.contains("did you mean two"), "{error}");
    for number in ["0", "7"] {
        let file = format!("FROM a\nCOPY --from={number} x y");
        let file = File::parse("f", file.as_bytes()).unwrap();
        let error = file.needed(0, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("line 2: invalid from flag value"), "{error}");
    }
    let file = File::parse("f", b"FROM $NONE").unwrap();
    let error = file.base(0, &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("should not be blank (give ARG NONE a value"), "{error}");
}

#[test]
fn predefined_arguments_are_there_and_can_be_replaced() {
    let file = File::parse("f", b"ARG T=$TARGETARCH\nFROM x-$T").unwrap();
    let predefined = map(&[("TARGETARCH", "amd64")]);
    let values = file.global_arguments(&predefined, &BTreeMap::new()).unwrap();
    assert_eq!(file.base(0, &values).unwrap(), Base::Image("x-amd64".to_owned()));
    let values = file.global_arguments(&predefined, &map(&[("TARGETARCH", "s390x")])).unwrap();
    assert_eq!(file.base(0, &values).unwrap(), Base::Image("x-s390x".to_owned()));
}
