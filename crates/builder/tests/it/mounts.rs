//! `RUN --mount` and `--network`.

use crate::harness::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn mounts_of_every_kind_are_there_and_leave_nothing() {
    let bench = Bench::new().await;
    bench.file("src/f", "context");
    let file = "FROM busybox AS other\nRUN mkdir /o && echo other > /o/f\nFROM busybox\n\
        RUN --mount=target=/ctx cat /ctx/src/f > /1 && ! touch /ctx/x\n\
        RUN --mount=source=src,target=/rw,rw touch /rw/x && ls /rw > /2\n\
        RUN --mount=from=other,source=/o,target=/other cat /other/f > /3\n\
        RUN --mount=type=cache,target=/cache,id=c echo one >> /cache/f\n\
        RUN --mount=type=cache,target=/cache,id=c echo two >> /cache/f; cat /cache/f > /4\n\
        RUN --mount=type=tmpfs,target=/t,size=1m mount | grep ' /t ' > /5; df -k /t | tail -n1 >> /5; ! head -c 2000000 /dev/zero > /t/big\n\
        RUN --mount=type=secret,id=s cat /run/secrets/s | wc -c > /6\n\
        RUN --mount=type=secret,id=s,target=/run/k,mode=0444,uid=33 stat -c '%a %u' /run/k > /7\n\
        RUN --mount=type=secret,id=s,env=TOKEN test ${#TOKEN} = 6 && echo $TOKEN | wc -c > /8\n\
        RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n";
    let mut request = bench.request(file);
    request.secrets.insert("s".to_owned(), b"hidden".to_vec());
    let image = bench.try_request(&request).await.unwrap();
    let files = bench.files(&image);
    assert_eq!(files["1"], "context");
    assert_eq!(files["2"], "f\nx\n");
    assert_eq!(files["3"], "other\n");
    assert_eq!(files["4"], "one\ntwo\n");
    assert!(files["5"].contains("tmpfs") && files["5"].contains("1024"), "{}", files["5"]);
    assert_eq!(files["6"], "6\n");
    assert_eq!(files["7"], "444 33\n");
    assert_eq!(files["8"], "7\n");
    assert_eq!(
        files.keys().map(String::as_str).collect::<Vec<_>>(),
        ["1", "2", "3", "4", "5", "6", "7", "8"]
    );
    assert!(!files.values().any(|text| text.contains("hidden")));
    assert!(!bench.config(&image).to_string().contains("hidden"));
    assert!(!bench.context().join("src/x").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_without_network_has_none() {
    let bench = Bench::new().await;
    let image = bench.build("FROM busybox\nRUN --network=none ls /sys/class/net > /none\n").await;
    assert_eq!(bench.files(&image)["none"], "lo\n");
}
