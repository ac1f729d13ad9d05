//! The tests through the front door: HTTP in; database, mails and the Google simulator out.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are outside the program: they have clients and folders of their own"
)]

mod accounts;
mod adoption;
mod analytics;
mod architecture;
mod authorisation;
mod calendar;
mod candidate_dashboard;
mod changing;
mod closed_accounts;
mod cluster;
mod connections;
mod crash;
mod dashboard;
mod double_click;
mod files;
mod framework;
mod google;
mod hostile;
mod mail_limits;
mod mails;
mod notifications;
mod openapi;
mod operations;
mod outages;
#[path = "../python/parsers.rs"]
mod parsers;
mod presence;
mod process;
#[path = "../python/mod.rs"]
mod python;
mod reading;
mod recaptcha;
mod recruiter_pages;
mod reminders;
mod reschedule;
mod room;
mod schedule;
mod scheduling;
mod secrecy;
mod settings;
mod signing_in;
mod support;
mod throttle;
mod time_rules;
