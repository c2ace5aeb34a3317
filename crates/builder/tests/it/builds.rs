//! Instructions, stages, arguments, the cache, and images that are the same twice.

use crate::harness::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn every_instruction_is_in_the_configuration() {
    let bench = Bench::new().await;
    let image = bench
        .build(
            "FROM busybox\nMAINTAINER me\nENV A=1 B=\"two words\"\nENV A=3\nLABEL l=$A m='x y'\n\
             EXPOSE 80 9000-9001/udp\nVOLUME /v1 /v2\nUSER web\nWORKDIR /w\nWORKDIR sub\n\
             STOPSIGNAL SIGQUIT\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD echo $A\nENTRYPOINT [\"/bin/sh\"]\n\
             HEALTHCHECK --interval=5s --retries=2 CMD true\nONBUILD RUN echo x\n",
        )
        .await;
    let config = bench.config(&image);
    let c = &config["config"];
    assert_eq!(c["Env"], serde_json::json!(["PATH=/bin", "A=3", "B=two words"]));
    assert_eq!(c["Labels"], serde_json::json!({ "l": "3", "m": "x y" }));
    let ports = c["ExposedPorts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(ports, ["80/tcp", "9000/udp", "9001/udp"]);
    assert_eq!(c["Volumes"], serde_json::json!({ "/v1": {}, "/v2": {} }));
    assert_eq!((c["User"].as_str(), c["WorkingDir"].as_str()), (Some("web"), Some("/w/sub")));
    assert_eq!(c["StopSignal"], "SIGQUIT");
    assert_eq!(c["Cmd"], serde_json::json!(["/bin/sh", "-ec", "echo $A"]));
    assert_eq!(c["Entrypoint"], serde_json::json!(["/bin/sh"]));
    assert_eq!(c["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "true"]));
    assert_eq!(c["Healthcheck"]["Interval"], 5_000_000_000u64);
    assert_eq!(c["OnBuild"], serde_json::json!(["RUN echo x"]));
    assert_eq!(config["author"], "me");
    let history = config["history"].as_array().unwrap();
    let layers = history.iter().filter(|h| h["empty_layer"] != true).count();
    // The base was made without a history; WORKDIR made two directories.
    assert_eq!((history.len(), layers), (15, 2));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers + 1);
    assert_eq!(bench.tree(&image), ["w/", "w/sub/"]);
    assert_eq!(bench.builder().images().find("test.local/built:1").unwrap().id, image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_the_image_so_far() {
    let bench = Bench::new().await;
    let image = bench
        .build(
            "FROM busybox AS base\nARG WHO=world\nENV GREETING=hello\nRUN echo $GREETING $WHO > /a && pwd > /cwd\n\
             RUN rm /etc/group && mkdir -p /d/e && ln -s x /d/l && echo 1 > /d/e/f\n\
             USER web\nWORKDIR /tmp\nRUN id -u > /tmp/id; id -g >> /tmp/id; pwd >> /tmp/id\n\
             RUN [\"/bin/sh\", \"-c\", \"echo $0 $HOME > /tmp/exec\"]\n\
             RUN <<EOF\nfor i in 1 2; do\n  echo $i >> /tmp/here\ndone\nEOF\n\
             RUN <<EOF cat > /tmp/cat\nverbatim\nEOF\nRUN <<X\n#!/bin/sh -e\necho script > /tmp/script\nX\n\
             RUN true\n",
        )
        .await;
    let files = bench.files(&image);
    assert_eq!(files["a"], "hello world\n");
    assert_eq!(files["cwd"], "/\n");
    assert_eq!(files["tmp/id"], "33\n34\n/tmp\n");
    assert_eq!(files["tmp/exec"], "/bin/sh /srv\n");
    assert_eq!(files["tmp/here"], "1\n2\n");
    assert_eq!(files["tmp/cat"], "verbatim\n");
    assert_eq!(files["tmp/script"], "script\n");
    assert_eq!(files["d/l"], "-> x");
    assert_eq!(files["etc/group"], "special", "a whiteout");
    // No mount point of the containers is left.
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    let stubs = ["proc/", "sys/", "dev/", "etc/hosts", "etc/resolv.conf", "etc/hostname"];
    assert!(!names.iter().any(|n| stubs.contains(n)), "{names:?}");
    let config = bench.config(&image);
    let last = config["history"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["empty_layer"], true, "true changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_are_built_when_they_are_needed() {
    let bench = Bench::new().await;
    let file = "ARG TAG=latest\nFROM busybox:$TAG AS one\nRUN echo one > /one\n\
        FROM busybox AS broken\nRUN false\n\
        FROM one AS two\nRUN echo two > /two\n\
        FROM scratch\nCOPY --from=two /one /two /\nCOPY --from=0 one /third\nCOPY --from=busybox /etc/passwd /p\n";
    let image = bench.build(file).await;
    let files = bench.files(&image);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["one", "p", "third", "two"]);
    assert_eq!((&*files["one"], &*files["two"], &*files["third"]), ("one\n", "two\n", "one\n"));
    let mut request = bench.request(file);
    request.target = Some("one".to_owned());
    let image = bench.try_request(&request).await.unwrap();
    assert_eq!(bench.tree(&image), ["one"]);
    request.target = Some("broken".to_owned());
    let error = bench.try_request(&request).await.unwrap_err();
    assert!(
        error.contains("Dockerfile:5: process \"/bin/sh -c false\" did not complete"),
        "{error}"
    );
    assert!(error.contains("exit code: 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_have_scopes() {
    let bench = Bench::new().await;
    let file = "ARG G=global\nARG H\nFROM busybox\nRUN echo \"[$G]\" > /before\nARG G\nARG L=local-$G\nARG H=inner\n\
        ARG E=arg\nENV E=env\nARG TARGETARCH\nRUN echo \"$G $L $H $E\" > /after; env > /env\n";
    let mut request = bench.request(file);
    request.build_args.insert("L".to_owned(), "given".to_owned());
    request.build_args.insert("HTTP_PROXY".to_owned(), "http://proxy".to_owned());
    let files = bench.files(&bench.try_request(&request).await.unwrap());
    assert_eq!(files["before"], "[]\n");
    assert_eq!(files["after"], "global given inner env\n");
    assert!(files["env"].contains("HTTP_PROXY=http://proxy\n"), "{}", files["env"]);
    assert!(files["env"].contains("TARGETARCH="), "{}", files["env"]);
    let image = bench.try_request(&request).await.unwrap();
    assert!(!bench.config(&image).to_string().contains("http://proxy"), "in no configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_of_the_base_run_first() {
    let bench = Bench::new().await;
    bench.file("f", "content");
    let mut request =
        bench.request("FROM busybox\nONBUILD COPY f /from-context\nONBUILD RUN echo t > /t\n");
    request.names = vec!["test.local/base:1".to_owned()];
    bench.try_request(&request).await.unwrap();
    let image = bench.build("FROM test.local/base:1\nRUN cat /t /from-context > /both\n").await;
    assert_eq!(bench.files(&image)["both"], "t\ncontent");
    assert!(bench.config(&image)["config"].get("OnBuild").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_taken_from_the_cache_by_content() {
    let mut bench = Bench::new().await;
    bench.file("f", "1");
    let file = "FROM busybox\nCOPY f /f\nRUN cat /proc/uptime /proc/sys/kernel/random/uuid > /random\nENV X=1\n";
    let one = bench.build(file).await;
    let two = bench.build(file).await;
    assert_eq!(one.id, two.id, "all from the cache: the same image");
    // Touched and of another name: the content counts.
    bench.file("f", "1");
    bench.open().await;
    assert_eq!(bench.build(file).await.layers, one.layers);
    bench.file("f", "2");
    let three = bench.build(file).await;
    assert_ne!(three.layers, one.layers);
    let mut request = bench.request(file);
    request.no_cache = true;
    assert_ne!(bench.try_request(&request).await.unwrap().layers[2], three.layers[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_makes_the_same_image_twice() {
    let bench = Bench::new().await;
    bench.file("f", "1");
    let file = "FROM busybox\nARG SOURCE_DATE_EPOCH\nCOPY f /d/f\nRUN echo $SOURCE_DATE_EPOCH > /e; mkdir /new\nWORKDIR /x/y\n";
    let mut request = bench.request(file);
    request.epoch = Some(1_600_000_000);
    let one = bench.try_request(&request).await.unwrap();
    request.no_cache = true;
    bench.file("f", "1");
    let two = bench.try_request(&request).await.unwrap();
    assert_eq!(one.id, two.id);
    assert_eq!(bench.files(&one)["e"], "1600000000\n");
    assert_eq!(bench.config(&one)["created"], "2020-09-13T12:26:40Z");
    request.epoch = Some(1_500_000_000);
    assert_ne!(bench.try_request(&request).await.unwrap().id, one.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_through_an_archive_and_into_another_store() {
    let bench = Bench::new().await;
    bench.file("f", "1");
    let file = "FROM scratch\nCOPY f /d/f\nCOPY --from=busybox / /\nRUN rm /etc/group /bin/nc; rm -r /d; mkdir /d; ln /etc/passwd /hard; mkdir -p /very/long/$(printf %0120d 1)/$(printf %0120d 2)\n";
    let image = bench.build(file).await;
    let archive = bench.dir.path().join("image.tar");
    let images = bench.builder().images();
    images.export(&image.id, &[], &archive).unwrap();
    let other = runtime::image::ImageStore::open(bench.dir.path().join("other")).unwrap();
    let imported = other.import(&archive, &[]).unwrap();
    assert_eq!(
        (imported.len(), &imported[0].id, &imported[0].layers),
        (1, &image.id, &image.layers)
    );
    assert!(imported[0].tags.contains("test.local/built:1"));
    let third = runtime::image::ImageStore::open(bench.dir.path().join("third")).unwrap();
    let names = ["test.local/adopted:2".to_owned()];
    let adopted = third.adopt(images.root(), &image.id, &names).unwrap().unwrap();
    assert_eq!((&adopted.id, adopted.tags.len()), (&image.id, 1));
    // What was adopted can be exported, too: the same streams.
    third.export(&image.id, &[], &archive).unwrap();
    assert!(third.adopt(images.root(), "none:1", &[]).unwrap().is_none());
    // The busybox of these tests is no stream's unpacked form.
    let error = images.export("busybox", &[], &archive.with_extension("x")).unwrap_err();
    assert!(error.to_string().contains("cannot be made into the same stream"), "{error}");
    assert!(!archive.with_extension("x").exists());
    assert_eq!(
        std::fs::read_dir(bench.dir.path()).unwrap().count(),
        6,
        "no part of a file is left"
    );
}

/// The step ends only after its first line was seen.
#[tokio::test(flavor = "multi_thread")]
async fn output_is_shown_while_a_step_runs() {
    let bench = Bench::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = bench.told.clone();
    let seen = move |text: &str| told.lock().unwrap().iter().any(|line| line == text);
    let answer = tokio::task::spawn_blocking(move || {
        let (_held, _) = listener.accept().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !seen("first") {
            assert!(std::time::Instant::now() < until, "the first line does not come");
            std::thread::yield_now();
        }
        assert!(!seen("second"));
    });
    let script = format!("echo first; nc 127.0.0.1 {port} </dev/null; echo second; printf third");
    bench.build(&format!("FROM busybox\nRUN {script}\n")).await;
    answer.await.unwrap();
    let told = bench.told.lock().unwrap().clone();
    let at = |text: &str| told.iter().position(|line| line == text).unwrap();
    assert!(at("first") < at("second") && at("second") < at("third"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_gives_back_what_was_not_used_for_longest() {
    let bench = Bench::new().await;
    let step = |name: &str| format!("FROM busybox\nRUN head -c 100000 /dev/zero > /{name}\n");
    let cached = |told: &[String]| told.iter().filter(|line| *line == "cached").count();
    let mut layers = Vec::new();
    for name in ["one", "two"] {
        let image = bench.build(&step(name)).await;
        bench.builder().images().forget(&image.id).unwrap();
        layers.push(image.layers.last().unwrap().clone());
    }
    // The first is used again, and so is the later one.
    let image = bench.build(&step("one")).await;
    bench.builder().images().forget(&image.id).unwrap();
    assert_eq!(cached(&bench.told.lock().unwrap()), 1);
    assert_eq!(bench.builder().collect(150_000).map_err(|e| e.to_string()).unwrap(), 100_000);
    let images = bench.builder().images();
    assert!(images.holds_layer(&layers[0]) && !images.holds_layer(&layers[1]));
    bench.build(&step("two")).await;
    assert_eq!(cached(&bench.told.lock().unwrap()), 1, "it is made again");
}
