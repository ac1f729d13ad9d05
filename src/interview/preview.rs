//! What a time in a form means before anything is scheduled at it, and what to warn of.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde_json::{Map, Value};

use super::{
    Interview, applicants, booking,
    model::{self, Change, Person},
    when,
};
use crate::{
    auth::CurrentUser,
    context::Context,
    http::{Error, Result},
    zone::{Resolved, Zone},
};

/// What a time means, and the warnings of scheduling at it.
pub struct Preview {
    /// Such as `Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)`.
    pub line: String,
    pub start: DateTime<Utc>,
    /// The day by the interview's own clock.
    pub day: NaiveDate,
    /// As scheduling would warn.
    pub warnings: Vec<String>,
}

/// What `date`, `time`, `timezone` and `duration_minutes` of a form mean, and what to warn of: for `user` and, when
/// they may be invited, the person of `candidate_id`. The interview of `interview_id`, which is to be moved, does not
/// count.
pub async fn preview(ctx: &Context, user: &CurrentUser, form: &Map<String, Value>) -> Result<Preview> {
    let slot = Slot::parse(form, ctx.settings.interview_duration_minutes)?;
    let id = |name| model::id(form.get(name));
    let candidate = match (user.company_id, id("candidate_id")) {
        (Some(company_id), Some(id)) => applicants::person(ctx, company_id, id).await?,
        _ => None,
    };
    slot.preview(ctx, user, candidate, id("interview_id").unwrap_or_default()).await
}

/// The same of an interview as `changes` would make it.
pub async fn preview_change(
    ctx: &Context,
    user: &CurrentUser,
    interview: &Interview,
    changes: &Map<String, Value>,
) -> Result<Preview> {
    let after = Change::parse(changes)?.applied_to(interview, &ctx.settings)?;
    let (zone, window) = (after.zone(), after.window(&ctx.settings));
    // `applied_to` has seen to it that there is an instant.
    let start = zone.instant(after.date, after.time).ok_or(Error::bad_request("Invalid date. Use YYYY-MM-DD."))?;
    let slot = Slot { date: after.date, time: after.time, zone, start, end: window.end };
    slot.preview(ctx, user, Some(interview.candidate()), interview.id).await
}

/// A time as somebody types it, with the formats of [`model::Request::parse`].
struct Slot {
    date: NaiveDate,
    time: NaiveTime,
    zone: Zone,
    start: Resolved,
    end: DateTime<Utc>,
}

impl Slot {
    async fn preview(
        self,
        ctx: &Context,
        user: &CurrentUser,
        candidate: Option<Person>,
        moved: i64,
    ) -> Result<Preview> {
        let span = (self.start.at, self.end);
        let mut warnings = model::time_warnings(&self.zone, self.date, self.time, &self.start, ctx.clock.now());
        if let Some(candidate) = candidate {
            // Not known is not free.
            warnings.extend(booking::overlaps(ctx, &candidate, user.id, span, moved).await?);
        }
        let day = self.zone.local(self.start.at).date_naive();
        Ok(Preview { line: when::line(&self.zone, span), start: self.start.at, day, warnings })
    }

    fn parse(form: &Map<String, Value>, default_duration: i32) -> Result<Slot> {
        let (date, time) = (model::date(form.get("date"))?, model::time(form.get("time"))?);
        let zone = model::zone(form.get("timezone"))?;
        let minutes = form.get("duration_minutes").map(|minutes| model::duration_minutes(Some(minutes))).transpose()?;
        let (start, end) = model::span(&zone, date, time, minutes.unwrap_or(default_duration))?;
        Ok(Slot { date, time, zone, start, end })
    }
}
