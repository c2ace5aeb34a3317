//! What the server costs, in CPU time of the whole process, beside a yardstick of the same run:
//! parsing the same pod with `serde_json`. Budgets: design §10.
//!
//! Requests go through the whole pipeline (authorisation, admission, validation, field management,
//! store) but not through TLS and HTTP framing, which the yardstick does not have either.
//!
//!     cargo bench -p apiserver

mod audit;
mod crowd;
mod policies;
mod requests;
mod scale;
mod schedule;
mod world;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let stick = world::yardstick();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, crowd::FILL, folder] => return crowd::fill(folder, stick).await,
        [_, crowd::REOPEN, folder] => return crowd::reopen(folder).await,
        _ => {}
    }
    println!(
        "yardstick: parse the pod ({} bytes)  {:.1} µs",
        world::pod("x").len(),
        stick.as_secs_f64() * 1e6
    );
    // Memory first: what later parts free is not all given back.
    scale::run(stick).await;
    requests::run(stick).await;
    policies::run(stick).await;
    audit::run(stick).await;
    schedule::run().await;
    crowd::run();
}
