//! The tests through the front door: HTTP in; database, mails and the Google simulator out.

mod adoption;
mod cluster;
mod scheduling;
mod support;
