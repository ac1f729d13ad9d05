//! The entries of lists, and the SQL that reads them.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use sqlx::PgExecutor;

use super::{
    model::{self, InterviewType, Person, Side, Window},
    page::Cursor,
};
use crate::{auth, config::Settings, zone::Zone};

/// What a list tells of an interview, of the people, the job and the company that belong to it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: i64,
    pub date: NaiveDate,
    pub time: NaiveTime,
    /// As stored: maybe no zone at all.
    pub timezone: String,
    /// As stored.
    pub interview_type: String,
    /// `''` when there is none.
    pub meeting_link: String,
    pub note: Option<String>,
    pub location: Option<String>,
    pub duration_minutes: Option<i32>,
    /// As cached, maybe wrong: [`Entry::window`] is right.
    pub starts_at: Option<DateTime<Utc>>,
    pub starts_at_tzdb: Option<String>,
    pub cancelled_at: Option<DateTime<Utc>>,
    pub candidate_id: i64,
    pub candidate_first_name: String,
    pub candidate_last_name: String,
    pub candidate_email: String,
    pub recruiter_id: Option<i64>,
    pub recruiter_first_name: Option<String>,
    pub recruiter_last_name: Option<String>,
    pub recruiter_email: Option<String>,
    pub job_title: String,
    pub company_name: String,
}

impl Entry {
    pub fn candidate(&self) -> Person {
        Person {
            id: self.candidate_id,
            first_name: self.candidate_first_name.clone(),
            last_name: self.candidate_last_name.clone(),
            email: self.candidate_email.clone(),
        }
    }

    /// `None` for rows that Django made.
    pub fn recruiter(&self) -> Option<Person> {
        Some(Person {
            id: self.recruiter_id?,
            first_name: self.recruiter_first_name.clone()?,
            last_name: self.recruiter_last_name.clone()?,
            email: self.recruiter_email.clone()?,
        })
    }

    pub fn candidate_name(&self) -> String {
        auth::full_name(&self.candidate_first_name, &self.candidate_last_name, &self.candidate_email)
    }

    /// `Unknown` for rows that Django made.
    pub fn recruiter_name(&self) -> String {
        match (&self.recruiter_first_name, &self.recruiter_last_name, &self.recruiter_email) {
            (Some(first), Some(last), Some(email)) => auth::full_name(first, last, email),
            _ => "Unknown".to_owned(),
        }
    }

    /// `None` for somebody who does not take part.
    pub fn side_of(&self, user_id: i64) -> Option<Side> {
        match user_id {
            id if self.recruiter_id == Some(id) => Some(Side::Recruiter),
            id if self.candidate_id == id => Some(Side::Candidate),
            _ => None,
        }
    }

    /// The interview's zone; UTC for what is no zone.
    pub fn zone(&self) -> Zone {
        let version = self.starts_at_tzdb.as_deref();
        model::stored_zone(self.date, self.time, &self.timezone, self.starts_at, version)
    }

    pub fn minutes(&self, settings: &Settings) -> i32 {
        self.duration_minutes.unwrap_or(settings.interview_duration_minutes)
    }

    pub fn window(&self, settings: &Settings) -> Window {
        let span = model::stored_span(&self.zone(), self.date, self.time, self.duration_minutes, settings);
        Window::new(span, self.cancelled_at.is_some(), settings)
    }

    pub fn kind(&self) -> InterviewType {
        InterviewType::stored(&self.interview_type)
    }

    /// Whether the two agree in everything that a recruiter can change.
    pub fn says_the_same_as(&self, other: &Entry) -> bool {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        (self.date, self.time, &self.timezone, &self.interview_type, self.duration_minutes)
            == (other.date, other.time, &other.timezone, &other.interview_type, other.duration_minutes)
            && (given(&self.note), given(&self.location)) == (given(&other.note), given(&other.location))
    }

    /// The link to the meeting, as long as there is one to join.
    pub fn link(&self) -> Option<&str> {
        let has_link = matches!(self.kind(), InterviewType::GoogleMeet | InterviewType::Custom);
        (has_link && self.cancelled_at.is_none() && !self.meeting_link.is_empty()).then_some(&*self.meeting_link)
    }
}

/// The interviews somebody takes part in, latest first: at most `most` of those after a cursor. Each side's rows come
/// in order from its index and are read once, so a page costs only what it shows. The caller is looked up once, and a
/// recruiter's company only if the job has none.
pub async fn of_user(
    db: impl PgExecutor<'_>,
    user_id: i64,
    side: Option<Side>,
    after: Cursor,
    most: i64,
) -> sqlx::Result<Vec<Entry>> {
    sqlx::query_as!(
        Entry,
        r#"
        SELECT i.id AS "id!", i.date AS "date!", i.time AS "time!", i.timezone::text AS "timezone!",
               i.interview_type::text AS "interview_type!", i.meeting_link::text AS "meeting_link!", i.note::text,
               i.location::text, i.duration_minutes::int, i.starts_at, i.starts_at_tzdb::text, i.cancelled_at,
               i.candidate_id AS "candidate_id!", i.candidate_first_name::text AS "candidate_first_name!",
               i.candidate_last_name::text AS "candidate_last_name!", i.candidate_email::text AS "candidate_email!",
               i.recruiter_id, i.recruiter_first_name::text, i.recruiter_last_name::text, i.recruiter_email::text,
               COALESCE(NULLIF(i.job_title, ''), j.title, 'Interview')::text AS "job_title!",
               COALESCE((SELECT name FROM company_company WHERE id = j.company_id),
                        (SELECT name FROM company_company WHERE user_id = i.recruiter_id), '')::text AS "company_name!"
        FROM ((SELECT i.id, i.date, i.time, i.timezone, i.interview_type, i.meeting_link, i.note, i.location,
                      i.duration_minutes, i.starts_at, i.starts_at_tzdb, i.cancelled_at, i.job_id, i.job_title,
                      i.candidate_id, c.first_name AS candidate_first_name, c.last_name AS candidate_last_name,
                      c.email AS candidate_email, i.recruiter_id, r.first_name AS recruiter_first_name,
                      r.last_name AS recruiter_last_name, r.email AS recruiter_email
               FROM company_interview i
               JOIN users_user c ON c.id = $1
               LEFT JOIN users_user r ON r.id = i.recruiter_id
               WHERE i.candidate_id = $1 AND $2 AND (i.date, i.time, i.id) < ($4, $5, $6)
               ORDER BY i.date DESC, i.time DESC, i.id DESC LIMIT $7)
              UNION ALL
              (SELECT i.id, i.date, i.time, i.timezone, i.interview_type, i.meeting_link, i.note, i.location,
                      i.duration_minutes, i.starts_at, i.starts_at_tzdb, i.cancelled_at, i.job_id, i.job_title,
                      i.candidate_id, c.first_name, c.last_name, c.email,
                      i.recruiter_id, r.first_name, r.last_name, r.email
               FROM company_interview i
               JOIN users_user c ON c.id = i.candidate_id
               JOIN users_user r ON r.id = $1
               WHERE i.recruiter_id = $1 AND $3 AND NOT ($2 AND i.candidate_id = $1)
                 AND (i.date, i.time, i.id) < ($4, $5, $6)
               ORDER BY i.date DESC, i.time DESC, i.id DESC LIMIT $7)) i
        LEFT JOIN job_job j ON j.id = i.job_id
        ORDER BY i.date DESC, i.time DESC, i.id DESC LIMIT $7
        "#,
        user_id,
        side != Some(Side::Recruiter),
        side != Some(Side::Candidate),
        after.date,
        after.time,
        after.id,
        most
    )
    .fetch_all(db)
    .await
}
