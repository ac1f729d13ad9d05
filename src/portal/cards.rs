//! Interviews as the dashboards show them: a card each, by when they are.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::room::status_words;
use crate::{
    context::Context,
    interview::{
        Interview,
        model::{MeetingStatus, Side, Status, Window, duration_words},
        when,
    },
    mail::State,
};

/// So many of somebody's interviews are shown of those ahead, the soonest, and of the others, the latest.
pub const MOST: i64 = 100;

/// Interviews of one part of time.
pub struct Section {
    pub title: &'static str,
    pub cards: Vec<Card>,
}

/// An interview as the dashboards show it to one of the two.
pub struct Card {
    pub id: i64,
    pub job_title: String,
    pub company_name: String,
    /// The other person.
    pub other: String,
    pub other_is_closed: bool,
    /// `Tue 1 Dec 2026, 09:00–10:00`, by the interview's own clock.
    pub when: String,
    /// Whose clock that is: `in Vancouver (UTC−7)`.
    pub place: String,
    /// Its IANA name.
    pub zone: String,
    /// Seconds since 1970, for the reader's own clock.
    pub start: i64,
    /// RFC 3339.
    pub starts_at: String,
    pub duration: String,
    pub type_name: &'static str,
    pub location: Option<String>,
    pub status: &'static str,
    /// The colour of the status.
    pub tone: &'static str,
    pub can_join: bool,
    /// It can still be changed and cancelled.
    pub is_ahead: bool,
    /// It is cancelled, or its door has closed.
    pub is_over: bool,
    /// The whole address of its room, without a token.
    pub room: String,
    pub invitations: Vec<Told>,
}

/// Whether a person knows of the interview.
pub struct Told {
    pub who: &'static str,
    pub state: &'static str,
    pub tone: &'static str,
    /// It can be sent again.
    pub mail: Option<Uuid>,
}

impl Card {
    fn new(ctx: &Context, interview: Interview, side: Side, now: DateTime<Utc>) -> Card {
        let (zone, window) = (interview.zone(), interview.window(&ctx.settings));
        let span = (window.start, window.end);
        let (other, other_side) = match side {
            Side::Recruiter => (interview.candidate_name(), Side::Candidate),
            Side::Candidate => (interview.recruiter_name(), Side::Recruiter),
        };
        let (status, tone) = match window.status(now) {
            Status::Upcoming if window.can_join(now) => ("Open", "good"),
            status @ Status::InProgress => (status_words(status), "good"),
            status @ Status::Cancelled => (status_words(status), "bad"),
            status => (status_words(status), ""),
        };
        let mails = interview.invitations.iter().flat_map(|mails| &mails.0);
        let invitations = mails.filter_map(|mail| {
            let who = match interview.side_of(mail.user_id)? {
                Side::Candidate => "candidate",
                Side::Recruiter => "you",
            };
            let (state, tone) = match mail.state {
                State::Sent => ("sent", "good"),
                State::Queued => ("waits to be sent", "warn"),
                State::Refused => ("refused by the mail server", "bad"),
                State::Expired => ("could not be sent", "bad"),
                State::Dropped => ("out of date", ""),
            };
            Some(Told { who, state, tone, mail: (mail.state.can_be_resent() && now < window.end).then_some(mail.id) })
        });
        let mut invitations: Vec<Told> = invitations.collect();
        invitations.sort_by_key(|told| told.who);
        Card {
            invitations,
            other,
            other_is_closed: interview.is_closed(other_side),
            when: when::hours(&zone, span),
            place: when::place(&zone, span),
            zone: zone.name().to_owned(),
            start: window.start.timestamp(),
            starts_at: window.start.to_rfc3339(),
            duration: duration_words(interview.minutes(&ctx.settings)),
            type_name: interview.kind().label(),
            status,
            tone,
            can_join: window.can_join(now),
            is_ahead: window.can_change(now),
            is_over: window.meeting_status(now) == MeetingStatus::Ended,
            room: format!("{}/interviews/{}/join/", ctx.settings.portal_url, interview.id),
            id: interview.id,
            job_title: interview.entry.job_title,
            company_name: interview.entry.company_name,
            location: interview.entry.location,
        }
    }
}

/// Interviews under the titles of the parts that `part` puts them in: in each the soonest first, in the last one, the
/// past, the latest first. Empty parts are left out.
pub fn sections<const PARTS: usize>(
    ctx: &Context,
    mut interviews: Vec<Interview>,
    side: Side,
    titles: [&'static str; PARTS],
    part: impl Fn(&Interview, &Window, DateTime<Utc>) -> usize,
) -> Vec<Section> {
    let now = ctx.clock.now();
    interviews.sort_by_cached_key(|interview| interview.window(&ctx.settings).start);
    let mut sections = titles.map(|title| Section { title, cards: Vec::new() });
    for interview in interviews {
        let part = part(&interview, &interview.window(&ctx.settings), now);
        sections[part].cards.push(Card::new(ctx, interview, side, now));
    }
    sections[PARTS - 1].cards.reverse();
    sections.into_iter().filter(|section| !section.cards.is_empty()).collect()
}
