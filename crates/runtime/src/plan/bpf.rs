//! Runs a seccomp filter as the kernel would, for one call: to know beforehand what it answers.
//!
//! Only the instructions that filters are made of: loads of whole words, jumps forward, masks, returns.

/// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
const DATA_WORDS: usize = 16;
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

const LOAD_WORD: u16 = 0x20;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;

fn data(number: i64, args: [u64; 2]) -> [u32; DATA_WORDS] {
    let mut words = [0; DATA_WORDS];
    words[0] = number as u32;
    words[1] = AUDIT_ARCH;
    for (index, arg) in args.iter().enumerate() {
        words[4 + 2 * index] = *arg as u32;
        words[5 + 2 * index] = (*arg >> 32) as u32;
    }
    words
}

/// The answer of a program (an array of `struct sock_filter`) to a call with these first arguments;
/// `None` for a program that this cannot follow.
pub(super) fn run(program: &[u8], number: i64, args: [u64; 2]) -> Option<u32> {
    let data = data(number, args);
    let (mut at, mut value) = (0usize, 0u32);
    loop {
        let code = program.get(at * 8..at * 8 + 8)?;
        let k = u32::from_ne_bytes([code[4], code[5], code[6], code[7]]);
        let jump = |taken: bool| usize::from(if taken { code[2] } else { code[3] });
        at += 1 + match u16::from_ne_bytes([code[0], code[1]]) {
            LOAD_WORD => {
                value = *data.get(k as usize / 4).filter(|_| k.is_multiple_of(4))?;
                0
            }
            AND => {
                value &= k;
                0
            }
            JUMP => k as usize,
            JUMP_EQUAL => jump(value == k),
            JUMP_GREATER => jump(value > k),
            JUMP_GREATER_EQUAL => jump(value >= k),
            JUMP_SET => jump(value & k != 0),
            RETURN => return Some(k),
            _ => return None,
        };
    }
}
