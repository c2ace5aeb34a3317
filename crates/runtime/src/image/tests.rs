//! Importing, refusing what lies, sharing and collecting layers.
use super::*;

fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        // Written raw: the builder itself refuses names that lead out.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn docker_archive(layer: &[u8], diff_id: &str, tag: &str) -> Vec<u8> {
    let config = format!(
        r#"{{"architecture":"{ARCHITECTURE}","os":"linux","config":{{"Cmd":["/x"],"Entrypoint":null}},
           "rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    );
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["{tag}"],"Layers":["l.tar"]}}]"#);
    tar_of(&[
        ("l.tar", layer),
        ("c.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ])
}

fn import(store: &ImageStore, bytes: &[u8]) -> Result<Vec<StoredImage>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    store.import(file.path(), &[])
}

#[test]
fn an_archive_comes_in_and_goes_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let layer = tar_of(&[("bin/x", b"hello"), ("bin/.wh.gone", b"")]);
    let id = sha256(&layer);
    let images = import(&store, &docker_archive(&layer, &id, "app:1")).unwrap();
    assert_eq!(images[0].size, 5);
    assert_eq!(images[0].process.cmd, ["/x"]);
    let found = ImageStore::open(dir.path()).unwrap().find("app:1").unwrap();
    assert!(found.pinned && found.tags.contains("docker.io/library/app:1"));
    assert_eq!(fs::read(store.layer_dir(&id).join("bin/x")).unwrap(), b"hello");
    use std::os::unix::fs::FileTypeExt;
    let whiteout = fs::metadata(store.layer_dir(&id).join("bin/gone")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    let used = HashSet::from([id.clone()]);
    store.remove("app:1", &used).unwrap();
    assert!(store.find("app:1").is_none() && store.has_layer(&id), "a container uses it still");
    store.collect(&HashSet::new()).unwrap();
    assert!(!store.has_layer(&id));
}

#[test]
fn compressed_archives_and_layers_are_read() {
    use std::io::Write;
    let gzip = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let layer = tar_of(&[("a", b"1")]);
    let archive = docker_archive(&gzip(&layer), &sha256(&layer), "a:1");
    import(&store, &gzip(&archive)).unwrap();
    assert!(store.find("a:1").is_some());
}

#[test]
fn a_layer_that_is_not_what_it_says_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let layer = tar_of(&[("a", b"1")]);
    let wrong = sha256(b"something else");
    let error = import(&store, &docker_archive(&layer, &wrong, "a:1")).unwrap_err();
    assert!(error.to_string().contains("announced was"), "{error}");
    assert!(store.list().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn no_path_leads_out_of_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let layer = tar_of(&[("../../../../escaped", b"1")]);
    assert!(import(&store, &docker_archive(&layer, &sha256(&layer), "a:1")).is_err());
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_link(&mut header, "out", dir.path()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, "out/escaped", &b"1"[..]).unwrap();
    let layer = builder.into_inner().unwrap();
    // The link resolves inside the layer, where nothing of that name is: made there, or refused.
    let _ = import(&store, &docker_archive(&layer, &sha256(&layer), "b:1"));
    assert!(!dir.path().join("escaped").exists());
}

#[test]
fn two_tags_of_one_binary_share_their_layer() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path().join("store")).unwrap();
    let file = dir.path().join("demo");
    fs::write(&file, "binary").unwrap();
    let image = |version: &str| StaticImage {
        file: file.clone(),
        path: "/demo".to_owned(),
        entrypoint: vec!["/demo".to_owned()],
        env: vec![format!("VERSION={version}")],
        names: vec![format!("trireme.local/demo:{version}")],
        ..StaticImage::default()
    };
    let one = store.build_static(&image("v1")).unwrap();
    let two = store.build_static(&image("v2")).unwrap();
    assert_ne!(one.id, two.id);
    assert_eq!(one.layers, two.layers);
    assert_eq!(store.find("trireme.local/demo:v2").unwrap().id, two.id);
    assert_eq!(store.used_bytes(), 6);
}

/// A file as a loss of power may leave it: cut at any byte, or with a block that never reached the disk.
fn torn(whole: &[u8]) -> Vec<Vec<u8>> {
    const BLOCK: usize = 512;
    let mut all: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    for start in (0..whole.len()).step_by(BLOCK) {
        let mut bytes = whole.to_vec();
        let end = (start + BLOCK).min(whole.len());
        bytes[start..end].fill(0);
        all.push(bytes);
    }
    all
}

#[test]
fn what_is_torn_is_forgotten_and_can_be_had_again() {
    // In memory: the store is opened a thousand times, and waits for its disk.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let layer = tar_of(&[("a", &b"1".repeat(70_000))]);
    let archive = docker_archive(&layer, &sha256(&layer), "app:1");
    let image = {
        let store = ImageStore::open(dir.path()).unwrap();
        import(&store, &archive).unwrap().remove(0)
    };
    let place = dir.path().join("layers").join(hex(&image.layers[0]));
    let record = dir.path().join("images").join(format!("{}.json", hex(&image.id)));
    let files = [record, dir.path().join("blobs").join(hex(&image.id)), place.join("size")];
    for path in files {
        let whole = fs::read(&path).unwrap();
        for bytes in torn(&whole) {
            fs::write(&path, &bytes).unwrap();
            let store = ImageStore::open(dir.path()).unwrap();
            assert!(store.find("app:1").is_none(), "{} {bytes:?}", path.display());
            let again = import(&store, &archive).unwrap().remove(0);
            assert_eq!((&again.id, again.size), (&image.id, 70_000));
            assert_eq!(fs::read(&path).unwrap().len(), whole.len(), "{}", path.display());
        }
    }
    let store = ImageStore::open(dir.path()).unwrap();
    assert_eq!(store.find("app:1").unwrap().size, 70_000);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_layer_without_its_size_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let layer = tar_of(&[("a", b"1")]);
    let store = ImageStore::open(dir.path()).unwrap();
    let image = import(&store, &docker_archive(&layer, &sha256(&layer), "app:1")).unwrap();
    let descriptor: Descriptor = serde_json::from_str(r#"{"digest":"x"}"#).unwrap();
    let config = store.config(&image[0].id).unwrap();
    assert!(store.missing_layers(&config, std::slice::from_ref(&descriptor)).unwrap().is_empty());
    fs::remove_file(store.layer_dir(&image[0].layers[0]).with_file_name("size")).unwrap();
    assert_eq!(store.missing_layers(&config, &[descriptor]).unwrap().len(), 1);
}

#[test]
fn an_image_is_removed_by_many_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    for _ in 0..20 {
        let layer = tar_of(&[("a", b"1")]);
        let images = import(&store, &docker_archive(&layer, &sha256(&layer), "app:1")).unwrap();
        let barrier = std::sync::Barrier::new(5);
        std::thread::scope(|scope| {
            let remove = || {
                barrier.wait();
                store.remove(&images[0].id, &HashSet::new()).map_err(|e| e.chain())
            };
            let all: Vec<_> = (0..5).map(|_| scope.spawn(remove)).collect();
            for one in all {
                assert_eq!(one.join().unwrap(), Ok(()));
            }
        });
        assert!(store.find("app:1").is_none());
    }
}
