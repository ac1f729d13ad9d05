//! UmEmployed Interviews: an interview-scheduling server.

// ground: no database, no HTTP
pub mod clock;
pub mod zone;
pub mod icalendar;
pub mod secret;
pub mod config;
pub mod telemetry;
// floor
pub mod db;
pub mod smtp;
pub mod context;
pub mod http;
pub mod jobs;
pub mod mail;
// features
pub mod auth;
pub mod calendar;
pub mod interview;
pub mod portal;
pub mod app;
// development only
#[cfg(feature = "dev")]
pub mod dev;
