//! The door: everything that Django REST Framework did around a view (contract §3), done once.
//!
//! [`error`] turns refusals into answers, [`extract`] turns requests into typed input, [`layers`] wraps every route,
//! [`peer`] tells where a request comes from, [`server`] holds the connections.

pub mod error;
pub mod extract;
pub mod layers;
pub mod peer;
pub mod server;

pub use error::{Error, Result};
