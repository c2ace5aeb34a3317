//! Only the supervisor: what the integration tests give as `supervisor_command`.
fn main() {
    runtime::supervisor::main(std::env::args_os().skip(1))
}
