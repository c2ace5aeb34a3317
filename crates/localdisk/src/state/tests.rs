use super::*;

fn volume(id: &str) -> Volume {
    Volume {
        id: id.into(),
        name: id.into(),
        size: 1 << 30,
        origin: Origin::Snapshot("s".into()),
        allocation: Allocation::Thin,
        file_system: Some("ext4".into()),
        formatting: false,
        shared: 5,
        published_read_only: None,
        block: false,
    }
}

fn opened() -> (tempfile::TempDir, State) {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    (directory, state)
}

#[test]
fn what_is_finished_is_found_again_and_what_is_not_is_gone() {
    let (directory, state) = opened();
    state.finish(state.begin().unwrap(), "a", &volume("a")).unwrap();
    let lost = state.begin().unwrap();
    std::fs::write(lost.disk(), "half").unwrap();
    // As a kill would leave it.
    std::mem::forget(lost);
    let again = State::open(directory.path()).unwrap();
    assert_eq!(again.all::<Volume>().unwrap(), [volume("a")]);
    assert_eq!(std::fs::read_dir(again.making()).unwrap().count(), 0);
}

#[test]
fn deleting_twice_is_deleting_once() {
    let (_directory, state) = opened();
    state.finish(state.begin().unwrap(), "a", &volume("a")).unwrap();
    for _ in 0..2 {
        state.delete::<Volume>("a").unwrap();
        assert_eq!(state.get::<Volume>("a").unwrap(), None);
    }
    assert_eq!(std::fs::read_dir(state.making()).unwrap().count(), 0);
}

#[test]
fn a_torn_record_is_an_error_that_names_the_file() {
    let (_directory, state) = opened();
    state.finish(state.begin().unwrap(), "a", &volume("a")).unwrap();
    std::fs::write(state.directory::<Volume>("a").join("volume.json"), "{\"id\":").unwrap();
    let error = state.get::<Volume>("a").unwrap_err().to_string();
    assert!(error.contains("volumes/a/volume.json"), "{error}");
}

#[test]
fn ids_are_one_path_component() {
    for id in ["pvc-0123", "A.b_c", &"x".repeat(64)] {
        assert!(is_id(id), "{id}");
        assert_eq!(id_of(id), id);
    }
    for wrong in ["", ".", "..", ".hidden", "a/b", "../x", "a b", "é", "a\0", &"x".repeat(65)] {
        assert!(!is_id(wrong), "{wrong}");
        assert!(is_id(&id_of(wrong)), "{wrong}");
    }
    assert_ne!(id_of("hashed-00"), "hashed-00", "a name cannot take another one's id");
    let (_directory, state) = opened();
    assert_eq!(state.get::<Volume>("../volumes/a").unwrap(), None);
}
