//! HTTP: what Django REST Framework does around a view (contract §3), done once, and the connections.
//!
//! [`routes`] knows every URL, and [`door`] stands around them all; [`extract`] turns requests into typed input,
//! [`array`] sends lists of any length, [`error`] turns refusals into answers, [`peer`] tells where a request
//! comes from, [`server`] holds the connections.

pub mod array;
pub mod door;
pub mod error;
pub mod extract;
pub mod peer;
pub mod routes;
pub mod server;

pub use error::{Error, Result};
