//! How many seats a level would use: its peak, mean and spread over a period (upstream's `integrator`).

use tokio::time::Instant;

/// How much of the former estimate stays after a period (upstream's `seatDemandSmoothingCoefficient`).
const STAYS: f64 = 0.977;

#[derive(Debug)]
pub(crate) struct Demand {
    now: f64,
    since: Instant,
    begun: Instant,
    sum: f64,
    squares: f64,
    peak: f64,
    smooth: f64,
}

impl Demand {
    pub(crate) fn new() -> Demand {
        let at = Instant::now();
        Demand { now: 0.0, since: at, begun: at, sum: 0.0, squares: 0.0, peak: 0.0, smooth: 0.0 }
    }

    pub(crate) fn set(&mut self, seats: f64) {
        self.advance(Instant::now());
        self.now = seats;
        self.peak = self.peak.max(seats);
    }

    fn advance(&mut self, to: Instant) {
        let passed = to.duration_since(self.since).as_secs_f64();
        self.sum += self.now * passed;
        self.squares += self.now * self.now * passed;
        self.since = to;
    }

    /// Ends a period: what the level is taken to need.
    pub(crate) fn period(&mut self) -> f64 {
        let at = Instant::now();
        self.advance(at);
        let length = at.duration_since(self.begun).as_secs_f64();
        let (mean, squares) = match length > 0.0 {
            true => (self.sum / length, self.squares / length),
            false => (self.now, self.now * self.now),
        };
        let spread = (squares - mean * mean).max(0.0).sqrt();
        let envelope = self.peak.min(mean + spread);
        self.smooth = envelope.max(STAYS * self.smooth + (1.0 - STAYS) * envelope);
        (self.begun, self.sum, self.squares, self.peak) = (at, 0.0, 0.0, self.now);
        self.smooth
    }
}
