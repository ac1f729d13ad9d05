//! Placeholder for the interface; the real module replaces it.
#[derive(Debug, Clone)]
pub struct Smtp;
