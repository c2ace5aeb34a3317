//! A machine with cgroup v2 alone: a virtual one, with Debian's kernel and a root in memory. What is
//! done in it is `vm/check.sh`; what is wrong there is a line that begins with `BAD`.
//!
//! Emulated, not by KVM: nested virtualisation opens and then hangs on some machines, and half a
//! minute of emulation is short enough.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::busybox;

const QEMU: &str = "qemu-system-x86_64";
/// The parts of the kernel that a cluster needs and Debian has as modules.
const MODULES: [&str; 7] = [
    "kernel/net",
    "kernel/fs/overlayfs",
    "kernel/lib",
    "kernel/drivers/net/veth.ko",
    // A disk that outlives the machine, and volumes on it.
    "kernel/drivers/virtio",
    "kernel/drivers/block/virtio_blk.ko",
    "kernel/drivers/block/loop.ko",
];
/// A run takes 40 s, and several times that where others use the processors: emulation is all
/// computing. One that takes longer than this hangs.
const LIMIT_SECONDS: &str = "200";
/// Where others use the processors, an emulated kernel sometimes never gets its clocks right and says
/// not a word: such a machine is started again.
const STARTS: usize = 3;

/// Where `cargo xtask test` has put the kernel: `boot/vmlinuz-*`, `lib/modules/*`.
pub(crate) fn kernel() -> Result<PathBuf, String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("only x86_64 has a machine description here".into());
    }
    if Command::new(QEMU).arg("--version").output().is_err() {
        return Err(format!("{QEMU} is not installed (`cargo xtask test` installs it)"));
    }
    let folder = std::env::var_os("TRIREME_TEST_KERNEL").map(PathBuf::from);
    folder.ok_or_else(|| "TRIREME_TEST_KERNEL is not set (`cargo xtask test` sets it)".into())
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("the program runs");
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The kernel's version, as its files are named.
pub(crate) fn version(kernel: &Path) -> String {
    let modules = std::fs::read_dir(kernel.join("lib/modules")).expect("the kernel has modules");
    let first = modules.flatten().next().expect("one version");
    first.file_name().to_string_lossy().into_owned()
}

fn copy_modules(kernel: &Path, version: &str, root: &Path) {
    let (from, to) =
        (kernel.join("lib/modules").join(version), root.join("lib/modules").join(version));
    for part in MODULES {
        let target = to.join(part);
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        run("cp", &["-r", &text(&from.join(part)), &text(&target)]);
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        std::fs::copy(from.join(list), to.join(list)).expect("copied");
    }
}

/// A kubectl with whatever libraries it needs.
fn copy_kubectl(root: &Path) {
    let direct = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33";
    let program = if Path::new(direct).exists() { direct } else { "/usr/bin/kubectl" };
    std::fs::copy(program, root.join("bin/kubectl")).expect("kubectl is installed");
    let needed = Command::new("ldd").arg(program).output().expect("ldd runs");
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        std::fs::copy(library, target).expect("copied");
    }
}

/// The machine's first root, as an archive that the kernel unpacks, with the script of its checks.
pub(crate) fn initrd(kernel: &Path, version: &str, folder: &Path, checks: &str) -> PathBuf {
    let root = folder.join("root");
    for part in ["bin", "etc"] {
        std::fs::create_dir_all(root.join(part)).expect("a folder");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let applets = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    copy_modules(kernel, version, &root);
    copy_kubectl(&root);
    // Debug information is most of the binary, and the machine's memory holds it twice.
    run("strip", &["-g", "-o", &text(&root.join("trireme")), env!("CARGO_BIN_EXE_trireme")]);
    let image = folder.join("image");
    std::fs::create_dir(&image).expect("a folder");
    std::fs::copy(busybox::archive(&image), root.join("image.tar")).expect("copied");
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("written");
    std::fs::write(root.join("check.sh"), checks).expect("written");
    std::fs::write(root.join("init"), include_str!("vm/init.sh")).expect("written");
    run("chmod", &["755", &text(&root.join("init"))]);
    let pack = "cd \"$0\" && find . | busybox cpio -o -H newc > ../initrd";
    run("sh", &["-c", pack, &text(&root)]);
    folder.join("initrd")
}

/// A machine that is not started yet.
/// `is_last`: the checks end by themselves.
pub(crate) fn machine(kernel: &Path, version: &str, initrd: &Path, is_last: bool) -> Command {
    let mut machine = Command::new(QEMU);
    // A machine with timers of its own (HPET, PM timer): QEMU's microvm has none, and a kernel that
    // cannot calibrate its clocks hangs without a word on some hosts.
    machine.args(["-M", "q35", "-m", "3G"]);
    machine.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
    machine.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    machine.arg("-kernel").arg(kernel.join(format!("boot/vmlinuz-{version}")));
    machine.arg("-initrd").arg(initrd);
    let line = "console=ttyS0 quiet panic=-1 cgroup_no_v1=all rdinit=/init";
    machine.arg("-append").arg(format!("{line}{}", if is_last { " last" } else { "" }));
    machine.stdin(Stdio::null());
    machine
}

/// What a machine says until it ends.
fn boot(kernel: &Path, version: &str, initrd: &Path) -> String {
    let machine = machine(kernel, version, initrd, true);
    let mut limited = Command::new("timeout");
    limited.args([LIMIT_SECONDS, QEMU]).args(machine.get_args()).stdin(Stdio::null());
    let output = limited.output().expect("the machine starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn limits_hold_on_cgroup_v2_alone() {
    let kernel = match kernel() {
        Ok(kernel) => kernel,
        Err(why) => return eprintln!("SKIPPED: no virtual machine: {why}"),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let version = version(&kernel);
    let initrd = initrd(&kernel, &version, folder.path(), include_str!("vm/check.sh"));
    let said = (0..STARTS).map(|_| boot(&kernel, &version, &initrd)).find(|said| !said.is_empty());
    let said = said.unwrap_or_default();
    assert!(said.contains("CHECKS ENDED 0"), "the machine did not come to its end:\n{said}");
    assert!(!said.contains("\nBAD "), "{said}");
    // A check that was left out is no check.
    assert!(said.matches("\nOK ").count() >= 14, "{said}");
}
