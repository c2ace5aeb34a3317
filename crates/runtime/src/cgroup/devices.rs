//! Which devices a container may use.
//!
//! On v1 the devices controller keeps a list. On v2 a BPF program decides, attached to the group; it
//! is generated here, one comparison chain per rule, as the kernel's verifier wants it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Group;
use crate::error::{IoContext, Result};

/// One allowed device; `None` means any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `b'c'` or `b'b'`.
    pub kind: u8,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceRule {
    pub const fn new(kind: u8, major: Option<u32>, minor: Option<u32>, access: &str) -> Self {
        let bytes = access.as_bytes();
        let (mut read, mut write, mut mknod, mut i) = (false, false, false, 0);
        while i < bytes.len() {
            match bytes[i] {
                b'r' => read = true,
                b'w' => write = true,
                b'm' => mknod = true,
                _ => {}
            }
            i += 1;
        }
        DeviceRule { kind, major, minor, read, write, mknod }
    }

    fn v1(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let access: String = [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')]
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, c)| *c)
            .collect();
        format!("{} {}:{} {access}", self.kind as char, number(self.major), number(self.minor))
    }
}

/// What every container may use: making any node (using it is another matter), the harmless devices,
/// and terminals. The same list as runc's.
pub const DEFAULT_DEVICES: [DeviceRule; 11] = [
    DeviceRule::new(b'c', None, None, "m"),
    DeviceRule::new(b'b', None, None, "m"),
    DeviceRule::new(b'c', Some(1), Some(3), "rwm"),
    DeviceRule::new(b'c', Some(1), Some(5), "rwm"),
    DeviceRule::new(b'c', Some(1), Some(7), "rwm"),
    DeviceRule::new(b'c', Some(1), Some(8), "rwm"),
    DeviceRule::new(b'c', Some(1), Some(9), "rwm"),
    DeviceRule::new(b'c', Some(5), Some(0), "rwm"),
    DeviceRule::new(b'c', Some(5), Some(1), "rwm"),
    DeviceRule::new(b'c', Some(5), Some(2), "rwm"),
    DeviceRule::new(b'c', Some(136), None, "rwm"),
];

impl Group {
    /// Restricts the group to the default devices and `extra`.
    pub fn restrict_devices(&self, extra: &[DeviceRule]) -> Result<()> {
        let rules: Vec<DeviceRule> = DEFAULT_DEVICES.iter().chain(extra).copied().collect();
        if let Some(dir) = self.v1_dir("devices") {
            fs::write(dir.join("devices.deny"), "a").at("write", dir.join("devices.deny"))?;
            let allow = dir.join("devices.allow");
            for rule in &rules {
                fs::write(&allow, rule.v1()).at("write", &allow)?;
            }
        } else if let Some(dir) = self.unified_dir().filter(|_| self.is_v2()) {
            attach_program(&OwnedFd::from(fs::File::open(dir).at("open", dir)?), &program(&rules))
                .at("attach the device program to", dir)?;
        }
        Ok(())
    }
}

/// One eBPF instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Insn {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE_REG: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const EXIT: u8 = 0x95;

fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: dst | src << 4, offset, immediate }
}

/// Registers: r2 the type (1 block, 2 char), r3 the access asked for (1 mknod, 2 read, 4 write), r4
/// major, r5 minor; r1 is a scratch after they are loaded. Allowed is 1.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut code = vec![
        insn(LOAD_WORD, 2, 1, 0, 0),
        insn(MOVE_REG, 3, 2, 0, 0),
        insn(AND, 2, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, 3, 0, 0, 16),
        insn(LOAD_WORD, 4, 1, 4, 0),
        insn(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests = vec![(2u8, if rule.kind == b'b' { 1 } else { 2 })];
        tests.extend(rule.major.map(|m| (4, m as i32)));
        tests.extend(rule.minor.map(|m| (5, m as i32)));
        let denied = !(i32::from(rule.mknod) | i32::from(rule.read) << 1 | i32::from(rule.write) << 2) & 7;
        // After the tests: r1 = r3 & denied; if r1 != 0 next rule; return 1.
        let mut left = tests.len() as i16 + 5;
        for (register, value) in tests {
            left -= 1;
            code.push(insn(JUMP_NOT_EQUAL, register, 0, left, value));
        }
        code.extend([
            insn(MOVE_REG, 1, 3, 0, 0),
            insn(AND, 1, 0, 0, denied),
            insn(JUMP_NOT_EQUAL, 1, 0, 2, 0),
            insn(MOVE, 0, 0, 0, 1),
            insn(EXIT, 0, 0, 0, 0),
        ]);
    }
    code.extend([insn(MOVE, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    code
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for loading a program: the rest is zero and may be left out.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

pub(super) fn attach_program(group: &OwnedFd, code: &[Insn]) -> io::Result<()> {
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
    };
    // SAFETY: both structures have the sizes that are said, and point to what outlives the calls.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &load, size_of::<Load>());
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let program = OwnedFd::from_raw_fd(fd as i32);
        let attach = Attach {
            target: group.as_raw_fd() as u32,
            program: program.as_raw_fd() as u32,
            kind: BPF_CGROUP_DEVICE,
            flags: BPF_F_ALLOW_MULTI,
        };
        let done = libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &attach, size_of::<Attach>());
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
