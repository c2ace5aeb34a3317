//! What cannot be built: the file, the line, the reason, and the fix.

use std::process::Command;

use crate::harness::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_names_its_line() {
    let bench = Bench::new().await;
    bench.file("f", "1");
    std::fs::write(bench.context().join("x.tar.xz"), b"\xfd7zXZ\0rest").unwrap();
    // It names a dictionary of 512 MiB.
    let xz = Command::new("xz").args(["--lzma2=dict=512MiB", "-c", "/etc/hostname"]).output();
    std::fs::write(bench.context().join("large.tar.xz"), xz.unwrap().stdout).unwrap();
    for (text, want) in [
        ("COPY none /x", "Dockerfile:2: \"none\": not found in the build context (check the path"),
        ("COPY no* /x/", "\"no*\": not found"),
        ("COPY f f /x", "the destination must be a directory and end with a / (write /x/)"),
        ("COPY --chown=nobody f /x", "the image has no user \"nobody\" (use a number"),
        ("COPY --chown=0:nobody f /x", "the image has no group \"nobody\""),
        ("COPY --chmod=9 f /x", "invalid chmod parameter: '9'"),
        ("ADD --checksum=sha256:0 f /x", "checksum can't be specified for non-HTTP(S) sources"),
        ("ADD https://example.com/a.git /x", "ADD of a Git repository is not supported"),
        ("ADD git@example.com:a.git /x", "ADD of a Git repository is not supported"),
        ("ADD x.tar.xz /x", "cannot copy /x.tar.xz"),
        ("ADD large.tar.xz /x", "needed memory too big"),
        ("COPY --from=0 / /x", "invalid from flag value 0"),
        ("RUN --security=insecure true", "security.insecure is not allowed (build with --allow"),
        (
            "RUN --mount=type=secret,id=s,required true",
            "secret s: not found (build with --secret id=s",
        ),
        ("RUN --mount=type=ssh,required true", "unset ssh forward key default"),
        ("RUN --mount=type=bind true", "a bind mount needs a target"),
        ("RUN echo said; exit 3", "exit code: 3\nsaid"),
        ("RUN [\"/none\"]", "/none"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE 80/icmp", "invalid containerPort: 80/icmp"),
        ("EXPOSE 9-1", "invalid containerPort: 9-1"),
        ("STOPSIGNAL SIGNONE", "Invalid signal: SIGNONE"),
        ("ENV A=${B:?absent}", "Dockerfile:2: failed to process \"${B:?absent}\": B: absent"),
        ("WORKDIR $NONE", "WORKDIR requires exactly one argument (a variable in it has no value)"),
        ("USER $NONE", "USER has an empty name"),
    ] {
        let done = bench.try_build(&format!("FROM busybox\n{text}\n")).await;
        let Err(error) = done else { panic!("{text} was built") };
        assert!(error.contains(want) && error.contains("Dockerfile:2"), "{text}: {error}");
    }
    let names = bench.builder().images().list().len();
    assert!(names <= 2, "failed builds leave {names} images");
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_builds_are_refused() {
    let bench = Bench::new().await;
    let mut request = bench.request("FROM busybox\n");
    request.platform = "linux/s390x".to_owned();
    let error = bench.try_request(&request).await.unwrap_err();
    assert!(error.contains("platform linux/s390x cannot be built"), "{error}");
    let error = bench.refused("FROM --platform=linux/s390x busybox\n").await;
    assert!(error.contains("Dockerfile:1: platform linux/s390x"), "{error}");
    let error = bench.refused("FROM 127.0.0.1:1/none\n").await;
    assert!(error.contains("Dockerfile:1: ") && error.contains("127.0.0.1:1"), "{error}");
    let mut request = bench.request("FROM busybox\n");
    request.names = vec!["Not A Name".to_owned()];
    assert!(bench.try_request(&request).await.is_err());
    request = bench.request("FROM busybox AS a\nFROM a AS b\n");
    request.target = Some("c".to_owned());
    let error = bench.try_request(&request).await.unwrap_err();
    assert!(error.contains("target stage \"c\" could not be found"), "{error}");
}
