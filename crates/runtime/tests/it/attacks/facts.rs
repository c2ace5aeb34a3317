//! A default container, fact by fact: what Debian's `runc` makes under containerd, with the differences
//! that we want (no `/run`, more masks, read-only ones, ENOSYS for clone3).
use std::collections::BTreeSet;

use super::*;

const FACTS: &str = "\
dev fd -> /proc/self/fd
dev full char (1, 7) 666 (0, 0)
dev mqueue dir (0, 0) 1777 (0, 0)
dev null char (1, 3) 666 (0, 0)
dev ptmx -> pts/ptmx
dev pts dir (0, 0) 755 (0, 0)
dev random char (1, 8) 666 (0, 0)
dev shm dir (0, 0) 1777 (0, 0)
dev stderr -> /proc/self/fd/2
dev stdin -> /proc/self/fd/0
dev stdout -> /proc/self/fd/1
dev tty char (5, 0) 666 (0, 0)
dev urandom char (1, 9) 666 (0, 0)
dev zero char (1, 5) 666 (0, 0)
mount / overlay rw,relatime
mount /attacker ext4 ro,relatime
mount /dev tmpfs rw,nosuid
mount /dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime
mount /dev/pts devpts rw,nosuid,noexec,relatime
mount /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime
mount /etc/hostname tmpfs rw,nosuid,nodev,noexec,relatime
mount /proc proc rw,nosuid,nodev,noexec,relatime
mount /proc/bus proc ro,nosuid,nodev,noexec,relatime
mount /proc/fs proc ro,nosuid,nodev,noexec,relatime
mount /proc/irq proc ro,nosuid,nodev,noexec,relatime
mount /proc/sys proc ro,nosuid,nodev,noexec,relatime
mount /sys sysfs ro,nosuid,nodev,noexec,relatime
path /proc/keys char hidden=true read-only=true
path /proc/timer_list char hidden=true read-only=true
path /sys/firmware dir hidden=true read-only=true
status Uid: 0 0 0 0
status Gid: 0 0 0 0
status Groups: 0
status CapInh: 0000000000000000
status CapPrm: 00000000a80425fb
status CapEff: 00000000a80425fb
status CapBnd: 00000000a80425fb
status CapAmb: 0000000000000000
status NoNewPrivs: 0
status Seccomp: 2
status Seccomp_filters: 2
status Umask: 0022
uid_map 0 0 4294967295
env HOME=/root
env HOSTNAME=pod
env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cwd /
process (1, 1, 1, 0) dumpable 1
fd 0 /dev/null";

/// Calls that a container without capabilities beyond the usual must not get to.
const REFUSED: [libc::c_long; 30] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_default_container_is_what_it_should_be() {
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let change = |c: &mut LinuxContainerSecurityContext| {
        c.seccomp = Some(SecurityProfile::default());
    };
    let (_, text) = node.script(&sandbox, attacker("exec /attacker facts", change)).await;
    let have: BTreeSet<&str> = text.lines().collect();
    let wanted: BTreeSet<&str> = FACTS.lines().collect();
    assert_eq!(wanted.difference(&have).collect::<Vec<_>>(), Vec::<&&str>::new(), "{text}");
    let cgroup = |l: &&&str| l.starts_with("mount /sys/fs/cgroup");
    assert!(have.iter().filter(cgroup).all(|l| l.contains(" ro,")), "{text}");
    // Nothing more of these kinds than is listed.
    for kind in ["dev ", "fd 3", "env LD", "mount /run", "mount /var"] {
        let more = have.difference(&wanted).filter(|l| l.starts_with(kind));
        assert_eq!(more.count(), 0, "{kind}: {text}");
    }
    let list = have.iter().find_map(|l| l.strip_prefix("calls EPERM ")).unwrap();
    let refused: BTreeSet<libc::c_long> =
        list.trim_matches(['[', ']']).split(", ").map(|n| n.parse().unwrap()).collect();
    for call in REFUSED {
        assert!(refused.contains(&call), "call {call}: {text}");
    }
}
