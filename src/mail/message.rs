//! The message itself: RFC 5322 headers that nothing can be smuggled into, and the parts that calendars understand.

use std::{fs, io, path::Path};

use chrono::{DateTime, Utc};
use lettre::{
    Address, Message,
    message::{
        Attachment, Mailbox, MultiPart, SinglePart,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
};
use uuid::Uuid;

use crate::icalendar::one_line;

/// A person to write to: the name shown, when there is one, and the address.
pub type Correspondent = (Option<String>, String);

/// A rendered mail. Names, addresses and the subject may hold anything: [`compose`] makes them harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub to: Correspondent,
    pub reply_to: Option<Correspondent>,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// The METHOD (RFC 5546) and the iCalendar object that says the same.
    pub calendar: Option<(&'static str, String)>,
}

/// Why a mail can never be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("the recipient's address is not usable")]
    Recipient,
    #[error("DEFAULT_FROM_EMAIL is not usable")]
    Sender,
    #[error("the message cannot be built")]
    Message,
}

/// `email` as an Internet message (RFC 5322) with the MIME structure that calendars understand as an invitation
/// (RFC 6047): text, HTML and iCalendar as alternatives, the iCalendar object once more as a file.
///
/// The `Message-ID` follows from `id`, so a second copy can be told from a second mail. A `Reply-To` that is no address
/// is left out: the mail is worth more.
pub fn compose(email: &Email, from: &str, id: Uuid, date: DateTime<Utc>) -> Result<Message, Unusable> {
    let from: Mailbox = from.parse().map_err(|_| Unusable::Sender)?;
    let message_id = format!("<{id}@{}>", from.email.domain());
    let mut message = Message::builder()
        .from(from)
        .to(mailbox(&email.to).ok_or(Unusable::Recipient)?)
        .subject(header_text(&email.subject))
        .date(date.into())
        .message_id(Some(message_id))
        .header(AutoSubmitted);
    if let Some(reply_to) = email.reply_to.as_ref().and_then(mailbox) {
        message = message.reply_to(reply_to);
    }
    let alternatives = MultiPart::alternative()
        .singlepart(SinglePart::plain(email.text.clone()))
        .singlepart(SinglePart::html(email.html.clone()));
    let message = match &email.calendar {
        None => message.multipart(alternatives),
        Some((method, object)) => {
            let kind = ContentType::parse(&format!("text/calendar; method={method}; charset=utf-8"));
            let kind = kind.map_err(|_| Unusable::Message)?;
            let part = SinglePart::builder().header(kind.clone()).body(object.clone());
            let file = Attachment::new("interview.ics".to_owned()).body(object.clone(), kind);
            message.multipart(MultiPart::mixed().multipart(alternatives.singlepart(part)).singlepart(file))
        }
    };
    message.map_err(|_| Unusable::Message)
}

/// Tells auto-responders to keep quiet (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

fn mailbox((name, address): &Correspondent) -> Option<Mailbox> {
    let (local, domain) = address.trim().rsplit_once('@')?;
    // An international domain has an ASCII form that every server understands (RFC 5891); a local part has none.
    let domain = match domain.is_ascii() {
        true => domain.to_owned(),
        false => url::Host::parse(domain).ok()?.to_string(),
    };
    let address = Address::new(local, domain).ok()?;
    if address.user().contains(char::is_control) || address.domain().contains(char::is_control) {
        return None;
    }
    let name = name.as_deref().map(header_text).filter(|name| !name.is_empty());
    Some(Mailbox::new(name, address))
}

/// A text for a header: on one line, with one space at a time. Of two between words that are not ASCII the encoder
/// leaves one between its encoded words, where readers drop it (RFC 2047, section 6.2).
fn header_text(text: &str) -> String {
    one_line(text).split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Writes each mail to `dir` (made when missing) to be looked at: the message `.eml`, and its parts `.txt`, `.html`
/// and, with an invitation, `.ics`.
pub fn write_preview(dir: &Path, mails: &[(&str, Email)]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (stem, email) in mails {
        let message =
            compose(email, "info@umemployed.com", Uuid::nil(), DateTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let write = |extension: &str, content: &[u8]| fs::write(dir.join(stem).with_extension(extension), content);
        write("eml", &message.formatted())?;
        write("txt", email.text.as_bytes())?;
        write("html", email.html.as_bytes())?;
        if let Some((_, object)) = &email.calendar {
            write("ics", object.as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mail_parser::{Message as Parsed, MessageParser, MimeHeaders, PartType};
    use proptest::prelude::*;

    use super::*;

    const FROM: &str = "info@umemployed.com";

    fn email() -> Email {
        Email {
            to: (Some("Carl Candy".to_owned()), "carl@x.test".to_owned()),
            reply_to: Some((Some("Rita Recruit".to_owned()), "rita@x.test".to_owned())),
            subject: "Interview Scheduled: Software Engineer".to_owned(),
            text: "Hi Carl,\n\nall is well – truly.\n".to_owned(),
            html: "<p>Hi Carl,</p>".to_owned(),
            calendar: Some(("REQUEST", "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n".to_owned())),
        }
    }

    fn composed(email: &Email) -> Vec<u8> {
        let date = "2026-11-20T21:46:15Z".parse().unwrap();
        compose(email, FROM, Uuid::from_u128(7), date).unwrap().formatted()
    }

    fn parsed(raw: &[u8]) -> Parsed<'_> {
        MessageParser::default().parse(raw).unwrap()
    }

    fn header(message: &Parsed<'_>, name: &str) -> Vec<String> {
        let named = message.headers_raw().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// The part's type with its parameters, indented by depth, and all it holds.
    fn outline(message: &Parsed<'_>, part: usize, depth: usize, to: &mut String) {
        let part = &message.parts[part];
        let kind = part.content_type().unwrap();
        let mut line = format!("{}{}/{}", "  ".repeat(depth), kind.c_type, kind.c_subtype.as_deref().unwrap_or("?"));
        for attribute in kind.attributes().unwrap_or_default().iter().filter(|attribute| attribute.name != "boundary") {
            line += &format!("; {}={}", attribute.name, attribute.value);
        }
        if let Some(disposition) = part.content_disposition() {
            line += &format!(" [{} {}]", disposition.c_type, part.attachment_name().unwrap_or("?"));
        }
        *to += &format!("{line}\n");
        if let PartType::Multipart(parts) = &part.body {
            for &inner in parts {
                outline(message, inner as usize, depth + 1, to);
            }
        }
    }

    #[test]
    fn an_invitation_has_the_structure_that_calendars_expect() {
        let raw = composed(&email());
        let message = parsed(&raw);
        let mut found = String::new();
        outline(&message, 0, 0, &mut found);
        insta::assert_snapshot!(found, @r"
        multipart/mixed
          multipart/alternative
            text/plain; charset=utf-8
            text/html; charset=utf-8
            text/calendar; method=REQUEST; charset=utf-8
          text/calendar; method=REQUEST; charset=utf-8 [attachment interview.ics]
        ");
        let object = email().calendar.unwrap().1;
        for part in message.parts.iter().filter(|part| part.is_content_type("text", "calendar")) {
            assert_eq!(part.text_contents(), Some(object.as_str()));
        }
        assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), email().text.trim_end());
    }

    #[test]
    fn the_header_names_one_recipient_the_date_and_an_id_made_from_the_queue() {
        let raw = composed(&email());
        let message = parsed(&raw);
        let found = ["From", "Reply-To", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"]
            .map(|name| format!("{name}: {}", header(&message, name).join(" | ")));
        insta::assert_snapshot!(found.join("\n"), @r#"
        From: info@umemployed.com
        Reply-To: "Rita Recruit" <rita@x.test>
        To: "Carl Candy" <carl@x.test>
        Subject: Interview Scheduled: Software Engineer
        Date: Fri, 20 Nov 2026 21:46:15 +0000
        Message-ID: <00000000-0000-0000-0000-000000000007@umemployed.com>
        Auto-Submitted: auto-generated
        MIME-Version: 1.0
        "#);
    }

    #[test]
    fn a_mail_without_an_invitation_is_two_alternatives() {
        let raw = composed(&Email { calendar: None, reply_to: None, ..email() });
        let mut found = String::new();
        outline(&parsed(&raw), 0, 0, &mut found);
        insta::assert_snapshot!(found, @r"
        multipart/alternative
          text/plain; charset=utf-8
          text/html; charset=utf-8
        ");
        assert!(header(&parsed(&raw), "Reply-To").is_empty());
    }

    #[test]
    fn line_breaks_of_a_subject_become_spaces_and_other_scripts_survive() {
        let raw = composed(&Email { subject: "Dev\r\nBcc: eve@x.test – Grüße 面接".to_owned(), ..email() });
        let message = parsed(&raw);
        assert!(header(&message, "Bcc").is_empty());
        assert_eq!(message.subject(), Some("Dev Bcc: eve@x.test – Grüße 面接"));
        assert!(raw.is_ascii());
    }

    #[test]
    fn an_international_domain_is_written_in_ascii() {
        let address = mailbox(&(None, " jürgen@bücher.example ".to_owned())).unwrap();
        assert_eq!(address.email.to_string(), "jürgen@xn--bcher-kva.example");
    }

    #[test]
    fn what_is_no_address_is_refused_as_recipient_and_left_out_as_reply_to() {
        for wrong in [
            "",
            "carl",
            "@x.test",
            "carl@",
            "carl@x.test\r\nBcc: eve@x.test",
            "a b@x.test",
            "c@x.test>",
            "carl@x..test",
        ] {
            let to = Email { to: (None, wrong.to_owned()), ..email() };
            assert_eq!(
                compose(&to, FROM, Uuid::nil(), DateTime::UNIX_EPOCH).err(),
                Some(Unusable::Recipient),
                "{wrong}"
            );
            let raw = composed(&Email { reply_to: Some((None, wrong.to_owned())), ..email() });
            assert!(header(&parsed(&raw), "Reply-To").is_empty(), "{wrong}");
        }
    }

    proptest! {
        /// Whatever names, addresses and titles hold, the header has each field once and the envelope one recipient.
        #[test]
        fn no_value_adds_a_header_or_a_recipient(
            name in any::<String>(), local in "\\PC{0,12}|[\\s\\S]{0,12}", domain in "[\\s\\S]{0,12}|x\\.test",
            subject in "[\\s\\S]{0,90}|(\r\nBcc: eve@x\\.test){1,2}", note in any::<String>(),
        ) {
            let address = format!("{local}@{domain}");
            let mail = Email {
                to: (Some(name.clone()), "carl@x.test".to_owned()),
                reply_to: Some((Some(name), address.clone())),
                subject, text: note.clone(), html: note.clone(), calendar: Some(("REQUEST", note)),
            };
            let raw = composed(&mail);
            let text = String::from_utf8_lossy(&raw).into_owned();
            let head = text.split("\r\n\r\n").next().unwrap();
            let fields: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split(':').next().unwrap()).collect();
            let with_reply = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Reply-To", "MIME-Version", "Content-Type"];
            let expected: Vec<&str> = with_reply.into_iter()
                .filter(|field| *field != "Reply-To" || mailbox(&(None, address.clone())).is_some()).collect();
            prop_assert_eq!(&fields, &expected);
            prop_assert!(!head.replace("\r\n", "").contains(|c: char| c.is_control() && c != '\t'));

            // As another parser reads it.
            prop_assert!(raw.split(|byte| *byte == b'\n').all(|line| line.len() <= 998 + 1));
            let read = mail_parser::MessageParser::default().parse(&raw).unwrap();
            let one_space = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(one_space(read.subject().unwrap_or_default()), one_space(&one_line(&mail.subject)));
            let name = one_space(&one_line(mail.to.0.as_deref().unwrap_or_default()));
            let to: Vec<_> = read.to().unwrap().clone().into_list();
            prop_assert_eq!(to.len(), 1);
            prop_assert_eq!(to[0].address.as_deref(), Some("carl@x.test"));
            prop_assert_eq!(one_space(to[0].name.as_deref().unwrap_or_default()), name);
            prop_assert!(read.bcc().is_none() && read.cc().is_none());

            let message = compose(&Email { to: (None, address), ..mail }, FROM, Uuid::nil(), DateTime::UNIX_EPOCH);
            if let Ok(message) = message {
                prop_assert_eq!(message.envelope().to().len(), 1);
                prop_assert!(!message.envelope().to()[0].to_string().contains(char::is_control));
            }
        }
    }
}
