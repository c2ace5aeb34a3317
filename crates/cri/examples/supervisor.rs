//! Only the supervisor: what the integration test gives as `supervisor_command`.
fn main() {
    runtime::supervisor::main(std::env::args_os().skip(1))
}
