//! Log records: format, cutting, rotation.
use super::*;

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn times_are_rfc3339_with_nanoseconds() {
    assert_eq!(timestamp(1_475_712_557_669_794_202), "2016-10-06T00:09:17.669794202Z");
    assert_eq!(timestamp(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
    assert_eq!(stamp_for_name(0), "19700101-000000");
}

#[test]
fn lines_are_whole_even_when_reads_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut log = LogFile::open(&path, 0, 0);
    let mut partial = Partial::default();
    log.write("stdout", &mut partial, b"one\ntw");
    log.write("stdout", &mut partial, b"o\n\nend");
    log.finish("stdout", &mut partial);
    assert_eq!(lines(&path), ["stdout F one", "stdout F two", "stdout F ", "stdout P end"]);
}

#[test]
fn long_lines_are_cut_and_tagged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut log = LogFile::open(&path, 0, 0);
    let mut partial = Partial::default();
    let text = [vec![b'x'; MAX_LINE + 5], vec![b'\n']].concat();
    log.write("stderr", &mut partial, &text);
    let found = lines(&path);
    assert_eq!(found[0].len(), "stderr P ".len() + MAX_LINE);
    assert_eq!(found[1], "stderr F xxxxx");
}

#[test]
fn the_backstop_rotates_and_prunes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    for stamp in ["20000101-000000", "20000102-000000"] {
        std::fs::write(dir.path().join(format!("0.log.{stamp}")), "old").unwrap();
    }
    let mut log = LogFile::open(&path, 60, 2);
    log.write("stdout", &mut Partial::default(), b"first\n");
    log.write("stdout", &mut Partial::default(), b"second\n");
    assert_eq!(lines(&path), ["stdout F second"]);
    let mut names: Vec<_> = read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[1], "0.log.20000102-000000");
}
