//! A system image from Debian's `busybox-static`, as a docker archive: a shell, `nslookup`, `tar`.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const NAME: &str = "test.local/busybox:1";
const APPLETS: [&str; 16] = [
    "sh", "nslookup", "tar", "cat", "ls", "echo", "sleep", "wget", "ps", "kill", "mkdir", "true",
    "ping", "stty", "grep", "touch",
];

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("the program runs");
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes the archive in `folder`.
pub(crate) fn archive(folder: &Path) -> PathBuf {
    let root = folder.join("rootfs");
    for dir in ["bin", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(dir)).expect("a folder");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("written");
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    run("tar", &["-C", &root.to_string_lossy(), "-cf", &at("layer.tar"), "."]);
    let sum = run("sha256sum", &[&at("layer.tar")]);
    let digest = sum.split(' ').next().expect("a digest");
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["/bin/sleep","1000000"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#,
        if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
    );
    std::fs::write(folder.join("config.json"), config).expect("written");
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{NAME}"],"Layers":["layer.tar"]}}]"#);
    std::fs::write(folder.join("manifest.json"), manifest).expect("written");
    let files = ["manifest.json", "config.json", "layer.tar"];
    let folder_text = folder.to_string_lossy().into_owned();
    let image = at("image.tar");
    run("tar", &[&["-C", &folder_text, "-cf", &image], &files[..]].concat());
    folder.join("image.tar")
}
