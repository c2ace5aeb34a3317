//! A soak: an API server with 512 MiB of memory, an ordinary user who sends whatever is hostile, and a
//! probe that asks for readiness all the while.
//!
//!     cargo bench -p trireme --bench hostile [-- [--seconds 600] [--only N]]
//!
//! It prints how slow readiness was, beside the yardstick of the same run without attackers, and how
//! much memory the server took. It fails when the server ends or refuses the probe.

mod attacks;
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use server::{Connection, Server};

const MEMORY: u64 = 512 * 1024 * 1024;
/// Half of them hold connections, the others send bodies.
const ATTACKERS: usize = 8;
const PROBE_PAUSE: Duration = Duration::from_millis(20);
const READY_BUDGET: Duration = Duration::from_millis(100);
const YARDSTICK: Duration = Duration::from_secs(5);

fn main() {
    // `cargo test --benches` and such pass other arguments: this is no test.
    let args: Vec<String> = std::env::args().collect();
    if !args.iter().any(|a| a == "--bench") {
        return;
    }
    let flag = |name: &str| -> Option<u64> {
        let text = args.iter().position(|a| a == name).and_then(|at| args.get(at + 1))?;
        Some(text.parse().expect("a number"))
    };
    let seconds = flag("--seconds").unwrap_or(600);
    // One attack of the list alone, to see what it costs.
    let only = flag("--only").map(|number| number as usize);
    let server = Arc::new(Server::start(MEMORY));
    attacks::prepare(&server);
    report("without attackers", probe(&server, YARDSTICK));
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|number| {
            let (server, stop, sent) = (server.clone(), stop.clone(), sent.clone());
            std::thread::spawn(move || {
                let mut turn = number;
                while !stop.load(Ordering::Relaxed) {
                    attacks::run(&server, only.unwrap_or(turn));
                    turn += ATTACKERS;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let times = probe(&server, Duration::from_secs(seconds));
    stop.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.join().expect("an attacker only fails to connect");
    }
    report("under attack", times);
    println!("{} attacks; {}", sent.load(Ordering::Relaxed), server.memory());
}

/// Asks for readiness over one connection, or another when that was closed to make room; how long each
/// answer took.
fn probe(server: &Server, length: Duration) -> Vec<Duration> {
    let mut connection = Connection::open(server).expect("a connection");
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        let asked = Instant::now();
        let mut code = connection.ask(server::ADMIN, "GET", "/readyz", "", b"");
        if code.is_err() {
            connection = Connection::open(server).expect("a connection");
            code = connection.ask(server::ADMIN, "GET", "/readyz", "", b"");
        }
        times.push(asked.elapsed());
        match code {
            Ok(200) => {}
            other => panic!("the server is not ready: {other:?}"),
        }
        std::thread::sleep(PROBE_PAUSE);
    }
    times
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let missed = if at(1.0) > READY_BUDGET { "  MISSED" } else { "" };
    println!(
        "readiness {what:<18} p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms (budget {} ms){missed}",
        ms(at(0.5)),
        ms(at(0.99)),
        ms(at(1.0)),
        READY_BUDGET.as_millis(),
    );
}
