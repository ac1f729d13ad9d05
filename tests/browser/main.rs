//! The portal's pages as people use them: in Chromium, with mouse, keyboard, clipboard, and without scripts. Where
//! chromedriver (Debian: chromium-driver) or npm's packages (`.ci/node`) are missing the tests say so and pass, but in
//! CI.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the program: they have clients and folders of their own"
)]

mod browser;
mod link;
mod pages;
mod recruiting;
mod room;
#[allow(dead_code, reason = "the tests of the API use the rest")]
#[path = "../api/support/mod.rs"]
mod support;
