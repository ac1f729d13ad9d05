//! What a run counts.

use std::{collections::BTreeMap, fmt, sync::Mutex};

#[derive(Default)]
pub struct Figures(Mutex<BTreeMap<String, u64>>);

impl Figures {
    pub fn count(&self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub fn add(&self, what: impl Into<String>, many: usize) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += many as u64;
    }

    /// All figures together whose name begins so.
    pub fn sum(&self, beginning: &str) -> u64 {
        self.0.lock().unwrap().iter().filter(|(what, _)| what.starts_with(beginning)).map(|(_, count)| count).sum()
    }
}

/// The rows of a table.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.lock().unwrap().iter().try_for_each(|(what, count)| writeln!(f, "| {what} | {count} |"))
    }
}
