//! What a time in a form means before anything is scheduled at it, and what speaks against it.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde_json::{Map, Value};

use super::{applicants, model, store, when};
use crate::{
    auth::CurrentUser,
    context::Context,
    http::Result,
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

/// What `date`, `time`, `timezone` and `duration_minutes` of a form mean, and what speaks against them for `user` and, when
/// he may be invited, the person of `candidate_id`. The interview of `interview_id`, which is to be moved, does not.
pub async fn preview(ctx: &Context, user: &CurrentUser, form: &Map<String, Value>) -> Result<Preview> {
    let slot = Slot::parse(form, ctx.settings.interview_duration_minutes)?;
    let span = (slot.start.at, slot.end);
    let mut warnings = model::time_warnings(&slot.zone, slot.date, slot.time, &slot.start, ctx.clock.now());
    let id = |name| model::id(form.get(name));
    let candidate = match (user.company_id, id("candidate_id")) {
        (Some(company_id), Some(id)) => applicants::person(ctx, company_id, id).await?,
        _ => None,
    };
    if let Some(candidate) = candidate {
        let moved = id("interview_id").unwrap_or_default();
        // Not known is not free.
        let busy = store::busy(&ctx.db, candidate.id, user.id, span, moved, &ctx.settings).await?;
        warnings.extend(model::overlap_warnings(&candidate, busy.candidate, busy.recruiter));
    }
    Ok(Preview {
        line: when::line(&slot.zone, span),
        start: slot.start.at,
        day: slot.zone.local(slot.start.at).date_naive(),
        warnings,
    })
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
    fn parse(form: &Map<String, Value>, default_duration: i32) -> Result<Slot> {
        let (date, time) = (model::date(form.get("date"))?, model::time(form.get("time"))?);
        let zone = model::zone(form.get("timezone"))?;
        let minutes = form.get("duration_minutes").map(|minutes| model::duration_minutes(Some(minutes))).transpose()?;
        let (start, end) = model::span(&zone, date, time, minutes.unwrap_or(default_duration))?;
        Ok(Slot { date, time, zone, start, end })
    }
}
