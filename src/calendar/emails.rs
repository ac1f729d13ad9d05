//! The words of the mails about a connection to Google Calendar: made (contract §8.1), or ended by Google.

use anyhow::Context as _;
use askama::Template;

use super::store;
use crate::{
    context::Context,
    icalendar::one_line,
    mail::{Email, Kind, Mail},
};

/// Where people see, and end, what has access to their Google account.
const GOOGLE_PAGE: &str = "https://myaccount.google.com/connections";

/// The queued mail; `None` when there is no longer an open account to name, or nothing true to say.
pub async fn render(ctx: &Context, mail: Mail) -> anyhow::Result<Option<Email>> {
    let Some(user_email) = store::open_email(&ctx.db, mail.user_id).await? else { return Ok(None) };
    let settings = &ctx.settings;
    if mail.kind == Kind::GoogleDisconnected {
        // Nobody asks those who have connected again meanwhile, in Django too.
        let grant = store::grant(&ctx.db, mail.user_id, super::sealer(ctx)).await?;
        let is_connected = grant.is_some_and(|stored| stored.grant.is_usable(ctx.clock.now()));
        let is_true = !is_connected && store::has_dead_grant(&ctx.db, mail.user_id).await?;
        return Ok(is_true.then(|| disconnected(&user_email, &settings.frontend_url, &settings.brand_name)));
    }
    let google_account = mail.recipient.context("a mail to a Google account names no account")?;
    Ok(Some(connected(&google_account, &user_email, &settings.frontend_url, &settings.brand_name)))
}

/// Tells a recruiter that Google no longer honours the connection, and how to make a new one.
pub fn disconnected(user_email: &str, frontend_url: &str, brand: &str) -> Email {
    let content = Ended { user_email: one_line(user_email), frontend_url, brand };
    let (text, html) = (EndedText { mail: &content }.render(), EndedHtml { mail: &content }.render());
    Email {
        to: (None, user_email.to_owned()),
        reply_to: None,
        subject: "Please reconnect Google Calendar".to_owned(),
        text: text.expect("a text in memory can be written"),
        html: html.expect("a text in memory can be written"),
        calendar: None,
    }
}

struct Ended<'a> {
    user_email: String,
    frontend_url: &'a str,
    brand: &'a str,
}

#[derive(Template)]
#[template(path = "mail/google_disconnected.txt")]
struct EndedText<'a> {
    mail: &'a Ended<'a>,
}

#[derive(Template)]
#[template(path = "mail/google_disconnected.html")]
struct EndedHtml<'a> {
    mail: &'a Ended<'a>,
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
    let ended = disconnected("rita@x.test", "https://www.example.com", "UmEmployed");
    vec![("google-connected", mail), ("google-disconnected", ended)]
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
    fn a_recruiter_is_told_that_the_connection_ended_and_how_to_make_another() {
        let (_, email) = samples().remove(1);
        assert_eq!((email.to.1.as_str(), email.calendar, email.reply_to), ("rita@x.test", None, None));
        insta::assert_snapshot!(email.text, @r"
        Hi,

        Google has ended the connection between the UmEmployed account rita@x.test and Google Calendar. This happens when access is removed in the Google Account, when its password changes, or after a long time without use.

        Interviews that are already scheduled stay as they are. To schedule, change or cancel Google Meet interviews with their calendar entries, please connect Google Calendar again: sign in as rita@x.test and connect it in your dashboard: https://www.example.com/dashboard/settings

        The UmEmployed Team
        ");
        for part in ["rita@x.test", "https://www.example.com"] {
            assert!(email.html.contains(part), "{part}");
        }
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
