//! Several failures told as one.

/// Why several keys or providers could not read a value, as Go's aggregates tell it.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    pub(crate) fn add(&mut self, why: String) {
        if !self.0.contains(&why) {
            self.0.push(why);
        }
    }

    /// All of them; `otherwise` when there is none.
    pub(crate) fn told(mut self, otherwise: &str) -> String {
        match self.0.len() {
            0 => otherwise.to_owned(),
            1 => self.0.remove(0),
            _ => format!("[{}]", self.0.join(", ")),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
