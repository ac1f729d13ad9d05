//! Not written yet.
pub mod google;
pub mod mailbox;
pub mod postgres;
pub mod seed;
