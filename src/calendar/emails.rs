//! The words of the mail that tells of a connected Google Calendar (contract §8.1).

use anyhow::Context as _;
use askama::Template;

use super::store;
use crate::{
    context::Context,
    icalendar::one_line,
    mail::{Email, Queued},
};

/// Where people see, and end, what has access to their Google account.
const GOOGLE_PAGE: &str = "https://myaccount.google.com/connections";

/// The queued mail; `None` when there is no longer an active user to name.
pub async fn compose(ctx: &Context, mail: Queued) -> anyhow::Result<Option<Email>> {
    let Some(user_email) = store::active_email(&ctx.db, mail.user_id).await? else { return Ok(None) };
    let google_account = mail.recipient.context("a mail to a Google account names no account")?;
    let settings = &ctx.settings;
    Ok(Some(connected(&google_account, &user_email, &settings.frontend_url, &settings.brand_name)))
}

/// Tells the Google account that it was connected to the account `user_email` here, and how to undo that.
pub fn connected(google_account: &str, user_email: &str, frontend_url: &str, brand: &str) -> Email {
    let content = Content {
        subject: "Google Calendar connected",
        google_account: one_line(google_account),
        user_email: one_line(user_email),
        frontend_url,
        brand,
        google_page: GOOGLE_PAGE,
    };
    let (text, html) = (Text { mail: &content }.render(), Html { mail: &content }.render());
    Email {
        to: (None, google_account.to_owned()),
        reply_to: None,
        subject: content.subject.to_owned(),
        text: text.expect("a text in memory can be written"),
        html: html.expect("a text in memory can be written"),
        calendar: None,
    }
}

/// What both parts say.
struct Content<'a> {
    subject: &'static str,
    google_account: String,
    user_email: String,
    frontend_url: &'a str,
    brand: &'a str,
    google_page: &'static str,
}

#[derive(Template)]
#[template(path = "mail/google_connected.txt")]
struct Text<'a> {
    mail: &'a Content<'a>,
}

#[derive(Template)]
#[template(path = "mail/google_connected.html")]
struct Html<'a> {
    mail: &'a Content<'a>,
}

/// A mail of each kind, to look at.
pub fn samples() -> Vec<(&'static str, Email)> {
    let mail = connected("rita.recruiter@gmail.test", "rita@x.test", "https://www.example.com", "UmEmployed");
    vec![("google-connected", mail)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_google_account_is_told_whom_it_now_serves_and_how_to_undo_it() {
        let (_, email) = samples().remove(0);
        assert_eq!(
            (email.subject.as_str(), email.to.1.as_str()),
            ("Google Calendar connected", "rita.recruiter@gmail.test")
        );
        assert_eq!((email.calendar, email.reply_to), (None, None));
        insta::assert_snapshot!(email.text, @r"
        Hi,

        The Google Calendar of rita.recruiter@gmail.test is now connected to the UmEmployed account rita@x.test.

        Google Meet interviews that this account schedules will be added to that calendar.

        If you did not want this, you can undo it at any time:
        1. In UmEmployed: sign in as rita@x.test and disconnect Google Calendar in your dashboard: https://www.example.com
        2. At Google: remove the access of UmEmployed in your Google Account: https://myaccount.google.com/connections

        The UmEmployed Team
        ");
    }

    #[test]
    fn the_html_says_the_same_and_escapes_what_people_chose() {
        let email = connected("<b>@gmail.test", "a&b@x.test", "https://www.example.com/?a=1&b=2", "R&D");
        for part in ["&#60;b&#62;@gmail.test", "a&#38;b@x.test", "R&#38;D", GOOGLE_PAGE] {
            assert!(email.html.contains(part), "{part} in {}", email.html);
        }
        assert!(!email.html.contains("<b>"));
    }
}
