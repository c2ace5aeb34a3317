//! ADD and COPY.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use dockerfile::ignore::Patterns;

use crate::harness::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn files_go_where_they_go_with_docker() {
    let bench = Bench::new().await;
    for (name, text) in
        [("a.txt", "a"), ("b.txt", "b"), ("c.bin", "c"), ("dir/x", "x"), ("dir/sub/y", "y")]
    {
        bench.file(name, text);
    }
    symlink("a.txt", bench.context().join("link")).unwrap();
    symlink("x", bench.context().join("dir/inner")).unwrap();
    for (line, want) in [
        ("COPY a.txt /f", "f=a"),
        ("COPY a.txt /d/", "d/ d/a.txt=a"),
        ("COPY a.txt d2/e", "d2/ d2/e=a"),
        ("COPY a.txt b.txt /d/", "d/ d/a.txt=a d/b.txt=b"),
        ("COPY *.txt /d/", "d/ d/a.txt=a d/b.txt=b"),
        ("COPY ?.b* /d/", "d/ d/c.bin=c"),
        ("COPY dir /d", "d/ d/inner=-> x d/sub/ d/sub/y=y d/x=x"),
        ("COPY dir/ /d/", "d/ d/inner=-> x d/sub/ d/sub/y=y d/x=x"),
        ("COPY dir/* /d/", "d/ d/inner=x d/x=x d/y=y"),
        ("COPY **/y /d/", "d/ d/y=y"),
        ("COPY link /d/", "d/ d/link=a"),
        ("COPY --exclude=sub dir /d", "d/ d/inner=-> x d/x=x"),
        (
            "COPY --exclude=*.txt . /d",
            "d/ d/c.bin=c d/dir/ d/dir/inner=-> x d/dir/sub/ d/dir/sub/y=y d/dir/x=x d/link=-> a.txt",
        ),
        ("COPY --parents dir/sub/y a.txt /d/", "d/ d/a.txt=a d/dir/ d/dir/sub/ d/dir/sub/y=y"),
        ("COPY --parents ./dir/./sub/y /d/", "d/ d/sub/ d/sub/y=y"),
        ("COPY --link a.txt /d/f", "d/ d/f=a"),
        ("COPY <<F /f\n$HOME-${X:-x}\n\"q\"\nF", "f=-x\n\"q\"\n"),
        ("COPY <<'F' <<G /d/\n$HOME\nF\ng\nG", "d/ d/F=$HOME\n d/G=g\n"),
        ("WORKDIR /w\nCOPY a.txt .", "w/ w/a.txt=a"),
        ("COPY [\"a.txt\", \"/with space\"]", "with space=a"),
        ("COPY ../../a.txt /f", "f=a"),
    ] {
        let image = bench.build(&format!("FROM scratch\n{line}\n")).await;
        let files = bench.files(&image);
        let text = |(name, text): (&String, &String)| match name.ends_with('/') {
            true => name.clone(),
            false => format!("{name}={text}"),
        };
        let got: Vec<String> = files.iter().map(text).collect();
        assert_eq!(got.join(" "), want, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_permissions_are_as_asked() {
    let bench = Bench::new().await;
    bench.file("f", "1");
    bench.file("dir/g", "1");
    let path = bench.context().join("f");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(1234)).unwrap();
    let image = bench
        .build(
            "FROM busybox AS source\nCOPY f /plain\nRUN chown 8:9 /plain\nFROM busybox\nCOPY --from=source /plain /kept\nCOPY f /plain\nCOPY --chown=web f /named/f\nCOPY --chown=5 f /number\n\
             COPY --chown=7:log f /group\nCOPY --chmod=4755 f /mode\nCOPY --chmod=u+x,g-r f /symbolic\n\
             COPY --chmod=u=rwX,go=rX dir /dir\n",
        )
        .await;
    let at = |name: &str| {
        let dirs =
            image.layers.iter().rev().map(|l| bench.builder().images().layer_dir(l).join(name));
        let meta = dirs.filter_map(|p| std::fs::symlink_metadata(p).ok()).next().unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(at("plain"), (0, 0, 0o640));
    assert_eq!(at("kept"), (8, 9, 0o640));
    assert_eq!(at("named/f"), (33, 34, 0o640));
    assert_eq!(at("named"), (33, 34, 0o755));
    assert_eq!(at("number"), (5, 5, 0o640));
    assert_eq!(at("group"), (7, 4, 0o640));
    assert_eq!(at("mode"), (0, 0, 0o4755));
    assert_eq!(at("symbolic"), (0, 0, 0o700));
    assert_eq!((at("dir"), at("dir/g")), ((0, 0, 0o755), (0, 0, 0o644)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_files_are_not_there() {
    let bench = Bench::new().await;
    for name in ["a", "b.log", "keep.log", "secret/x", "secret/y", "node_modules/m/z"] {
        bench.file(name, "1");
    }
    let mut request = bench.request("FROM scratch\nCOPY . /d/\n");
    request.ignore = Patterns::read("*.log\n!keep.log\nsecret\n!secret/y\n**/m\n").unwrap();
    let image = bench.try_request(&request).await.unwrap();
    let want = ["d/", "d/a", "d/keep.log", "d/node_modules/", "d/secret/", "d/secret/y"];
    assert_eq!(bench.tree(&image), want);
    let mut request = bench.request("FROM scratch\nCOPY b.log /d/\n");
    request.ignore = Patterns::read("*.log").unwrap();
    let error = bench.try_request(&request).await.unwrap_err();
    assert!(error.contains("Dockerfile:2: \"b.log\": not found in the build context"), "{error}");
}

fn archive(names: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o600);
        header.set_uid(11);
        header.set_gid(12);
        header.set_mtime(5);
        tar.append_data(&mut header, name, &b"1"[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn add_takes_archives_apart_and_copy_does_not() {
    let bench = Bench::new().await;
    let tar = archive(&["in/f", "g"]);
    // `git archive` begins with a comment on all entries.
    let mut comment = tar::Header::new_ustar();
    comment.set_entry_type(tar::EntryType::XGlobalHeader);
    comment.set_path("pax_global_header").unwrap();
    comment.set_size(12);
    comment.set_cksum();
    let mut with_comment = comment.as_bytes().to_vec();
    with_comment.extend_from_slice(b"12 comment=x");
    with_comment.resize(1024, 0);
    with_comment.extend_from_slice(&tar);
    std::fs::write(bench.context().join("a.tar"), &with_comment).unwrap();
    std::fs::write(bench.context().join("cut.tar"), &tar[..700]).unwrap();
    let image = bench
        .build("FROM scratch\nADD a.tar /d/\nCOPY a.tar /copy\nADD --unpack=false a.tar /add\n")
        .await;
    let files = bench.files(&image);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert!(names.contains(&"d/in/f") && names.contains(&"d/g"), "{names:?}");
    assert!(names.contains(&"copy") && names.contains(&"add"), "{names:?}");
    let dir = bench.builder().images().layer_dir(&image.layers[0]);
    let meta = std::fs::metadata(dir.join("d/g")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (11, 12, 5));
    // A name that means something in a layer is no file of an image.
    std::fs::write(bench.context().join("wh.tar"), archive(&[".wh.h"])).unwrap();
    let error = bench.refused("FROM scratch\nADD wh.tar /d/\n").await;
    assert!(error.contains("begins with .wh."), "{error}");
    let error = bench.refused("FROM scratch\nADD cut.tar /d/\n").await;
    assert!(error.contains("Dockerfile:2: cannot copy /cut.tar"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn add_takes_archives_apart_that_are_packed_with_bzip2_or_xz() {
    let bench = Bench::new().await;
    let tar = archive(&["in/f", "g"]);
    for (program, name) in [("bzip2", "a.tar.bz2"), ("xz", "a.tar.xz")] {
        let plain = bench.dir.path().join("a.tar");
        std::fs::write(&plain, &tar).unwrap();
        let pack = || {
            let done = std::process::Command::new(program).arg("-c").arg(&plain).output().unwrap();
            assert!(done.status.success(), "apt-get install bzip2 xz-utils");
            done.stdout
        };
        // Parallel packers write several streams.
        std::fs::write(&plain, &tar[..512]).unwrap();
        let mut packed = pack();
        std::fs::write(&plain, &tar[512..]).unwrap();
        packed.extend(pack());
        std::fs::write(bench.context().join(name), &packed).unwrap();
        std::fs::write(bench.context().join("cut"), &packed[..packed.len() - 20]).unwrap();
        let image = bench.build(&format!("FROM scratch\nADD {name} /d/\n")).await;
        let files = bench.files(&image);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert!(names.contains(&"d/in/f") && names.contains(&"d/g"), "{name}: {names:?}");
        std::fs::rename(bench.context().join("cut"), bench.context().join(name)).unwrap();
        let error = bench.refused(&format!("FROM scratch\nADD {name} /d/\n")).await;
        assert!(error.contains(&format!("cannot copy /{name}")), "{error}");
    }
}

/// buildah's `replace-*` cases.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_takes_the_place_of_a_link_or_a_file_and_the_other_way_round() {
    let bench = Bench::new().await;
    bench.file("tree1/directory/file-in-directory", "1");
    symlink("directory", bench.context().join("tree1/maybe-directory")).unwrap();
    bench.file("tree2/maybe-directory/deep/file", "2");
    bench.file("tree3/maybe-directory", "3");
    let show = "RUN cd $D; for f in maybe-directory maybe-directory/deep/file directory/file-in-directory; \
                do stat -c '%n %F' $f; done > /said 2>&1; true\n";
    for (order, what) in [
        (["tree1", "tree2"], "directory"),
        (["tree2", "tree1"], "symbolic link"),
        (["tree3", "tree2"], "directory"),
        (["tree2", "tree3"], "regular file"),
    ] {
        for place in ["/", "/tree/"] {
            let copies: String = order.map(|tree| format!("COPY {tree}/ {place}\n")).concat();
            let show = show.replace("$D", place);
            let image = bench.build(&format!("FROM busybox\n{copies}{show}")).await;
            let said = bench.files(&image)["said"].clone();
            assert!(said.starts_with(&format!("maybe-directory {what}")), "{order:?} {said}");
            let deep = said.contains("maybe-directory/deep/file regular");
            assert_eq!(deep, what == "directory", "{order:?} {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_nowhere_outside() {
    let bench = Bench::new().await;
    let outside = bench.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("f"), "host").unwrap();
    symlink(&outside, bench.context().join("out")).unwrap();
    symlink("/etc/hostname", bench.context().join("abs")).unwrap();
    for line in ["COPY out/f /x", "COPY abs /x", "COPY ../../../../etc/hostname /x"] {
        let error = bench.refused(&format!("FROM scratch\n{line}\n")).await;
        assert!(error.contains("not found in the build context"), "{line}: {error}");
    }
    // An image's link into the host stays inside the image.
    bench.file("f", "new");
    let file = format!("FROM busybox\nRUN ln -s {} /esc\nCOPY f /esc/g\n", outside.display());
    let outcome = bench.try_build(&file).await;
    assert!(outcome.is_err(), "the link leads to nothing in the image");
    assert!(!outside.join("g").exists());
}
