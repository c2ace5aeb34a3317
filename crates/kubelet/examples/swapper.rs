//! An attacker for tests: swaps two names as fast as the kernel lets it, until it is killed.

fn main() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [a, b] = names.as_slice() else { std::process::exit(2) };
    loop {
        if renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_err() {
            std::process::exit(1);
        }
    }
}
