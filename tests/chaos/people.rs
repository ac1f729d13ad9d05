//! Recruiters who schedule, change and cancel, several things at a time, who connect and disconnect Google, and try
//! again whenever something fails; and what each of them was told.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use chrono::{DateTime, DurationRound as _, NaiveDateTime, TimeDelta, Utc};
use interviews::clock::Clock;
use reqwest::{Client, Method, RequestBuilder, redirect::Policy};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    figures::Figures,
    servers::Servers,
    support::{access_token, process::World},
};

const RECRUITERS: usize = 24;
/// How many things a recruiter does at a time.
const HANDS: usize = 4;
const CANDIDATES: i64 = 40;
/// How long a person tries again.
const PERSISTENCE: Duration = Duration::from_secs(240);
/// And how long once enough has been done. What a dead server held is free after a minute only, so without this end
/// somebody would always be in such a wait.
const LAST_PERSISTENCE: Duration = Duration::from_secs(20);
/// Zones whose offset never changes, in minutes: what an instant is needs no tz database here.
const ZONES: [(&str, i64); 6] = [
    ("UTC", 0),
    ("Asia/Kolkata", 330),
    ("Asia/Tokyo", 540),
    ("America/Phoenix", -420),
    ("Asia/Kathmandu", 345),
    ("Pacific/Kiritimati", 840),
];

/// Recruiters 101…, each with a company and a job, and candidates 1001…, who have applied to all of them.
pub async fn insert(pool: &interviews::db::Pool) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO resume_skillcategory (id, name) VALUES (1, 'General');
         INSERT INTO users_user (id, password, is_superuser, username, is_staff, is_active, date_joined, first_name, last_name,
             email, is_recruiter, is_applicant, has_resume, has_company, is_deleted, created_at, updated_at)
         SELECT id, '!', false, 'person' || id, false, true, now(), 'Person', id::text, 'person' || id || '@x.test',
             id < 1000, id >= 1000, false, id < 1000, false, now(), now()
         FROM (SELECT generate_series(101, 100 + {RECRUITERS}) AS id
               UNION ALL SELECT generate_series(1001, 1000 + {CANDIDATES})) AS people;
         INSERT INTO company_company (id, user_id, name, country, logo, cover_photo, created_at, updated_at)
         SELECT id, id, 'Company ' || id, 'US', '', '', now(), now() FROM users_user WHERE is_recruiter;
         INSERT INTO job_job (id, user_id, company_id, title, hire_number, job_location_type, location, salary, salary_range,
             ideal_candidate, is_available, description, responsibilities, benefits, level, category_id, job_type,
             experience_levels, weekly_ranges, shifts, created_at, updated_at, job_creation_is_complete,
             questions_generation_progress)
         SELECT id, id, id, 'Job ' || id, 1, 'remote', 'US', 1, '', '', true, '', '', '', 'Beginner', 1, '', '', '', '', now(),
             now(), true, '{{}}' FROM users_user WHERE is_recruiter;
         INSERT INTO job_application (user_id, job_id, quiz_score, matching_percentage, overall_match_percentage,
             has_completed_quiz, round_scores, total_scores, status, has_started, created_at, updated_at)
         SELECT candidate.id, job.id, 0, 0, 0, false, '{{}}', '{{}}', 'pending', false, now(), now()
         FROM users_user candidate, job_job job WHERE candidate.is_applicant"
    )))
    .execute(pool)
    .await
    .unwrap();
}

/// The Google accounts of all recruiters.
pub fn accounts() -> Vec<String> {
    (0..RECRUITERS).map(|recruiter| account(recruiter_id(recruiter))).collect()
}

fn recruiter_id(recruiter: usize) -> i64 {
    101 + recruiter as i64
}

pub fn account(recruiter_id: i64) -> String {
    format!("person{recruiter_id}@gmail.test")
}

/// What an interview is to be, as its recruiter knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub starts_at: DateTime<Utc>,
    pub minutes: i64,
    pub is_meet: bool,
    pub is_cancelled: bool,
}

/// An interview that somebody tried to schedule.
#[derive(Clone, Debug)]
pub struct Known {
    pub recruiter_id: i64,
    pub candidate_id: i64,
    /// Scheduling was acknowledged with this id.
    pub id: Option<i64>,
    /// What was acknowledged last, or, before that, what was asked for.
    pub facts: Facts,
    /// What was asked for and never answered: it may have happened.
    pub in_doubt: Option<Facts>,
    /// The request was refused: there must be no interview.
    pub is_refused: bool,
    /// Removed behind the server's back.
    pub is_deleted: bool,
    /// Its event then, which nobody told the server to delete.
    pub left_event: Option<String>,
}

impl Known {
    fn asked(recruiter_id: i64, candidate_id: i64, facts: Facts) -> Known {
        Known {
            recruiter_id,
            candidate_id,
            id: None,
            facts,
            in_doubt: None,
            is_refused: false,
            is_deleted: false,
            left_event: None,
        }
    }
}

pub struct People {
    world: Arc<World>,
    servers: Arc<Servers>,
    figures: Arc<Figures>,
    http: Client,
    /// Operations, and kills of servers.
    enough: (u64, u64),
    enough_since: OnceLock<Instant>,
    known: Mutex<Vec<Known>>,
}

impl People {
    pub fn new(world: Arc<World>, servers: Arc<Servers>, figures: Arc<Figures>, enough: (u64, u64)) -> People {
        // Nobody keeps connections that look like leaks in the end.
        let http = Client::builder().redirect(Policy::none()).pool_idle_timeout(Duration::from_secs(5));
        let http = http.timeout(Duration::from_secs(70)).build().unwrap();
        People { world, servers, figures, http, enough, enough_since: OnceLock::new(), known: Mutex::default() }
    }

    /// Interviews scheduled, changed and cancelled, tries that failed included.
    pub fn operations(&self) -> u64 {
        self.figures.sum("operations")
    }

    fn is_enough(&self) -> bool {
        let is_enough = self.operations() >= self.enough.0 && self.servers.kills() >= self.enough.1;
        if is_enough {
            self.enough_since.get_or_init(Instant::now);
        }
        is_enough
    }

    /// Nobody insists any more on having something done.
    pub fn is_over(&self) -> bool {
        self.is_enough() && self.enough_since.get().is_some_and(|since| since.elapsed() > LAST_PERSISTENCE)
    }

    pub fn known(&self) -> Vec<Known> {
        self.known.lock().unwrap().clone()
    }

    /// Everybody works until all is done.
    pub async fn work(self: Arc<Self>, mut random: fastrand::Rng) {
        let mut connecting = JoinSet::new();
        let mut working = JoinSet::new();
        for recruiter in 0..RECRUITERS {
            let recruiter_id = recruiter_id(recruiter);
            connecting.spawn(self.clone().keep_connected(recruiter_id, random.fork()));
            for _ in 0..HANDS {
                working.spawn(self.clone().work_with_one_hand(recruiter_id, random.fork()));
            }
        }
        while let Some(ended) = working.join_next().await {
            ended.unwrap();
        }
        connecting.abort_all();
        while let Some(ended) = connecting.join_next().await {
            assert!(!ended.is_err_and(|error| error.is_panic()), "connecting panicked");
        }
    }

    async fn work_with_one_hand(self: Arc<Self>, recruiter_id: i64, mut random: fastrand::Rng) {
        self.until_connected(recruiter_id, &mut random).await;
        let mut own: Vec<usize> = Vec::new();
        while !self.is_enough() {
            let index = (!own.is_empty()).then(|| own[random.usize(..own.len())]);
            match (index, random.u32(..100)) {
                (Some(index), 0..38) => {
                    if !self.change(index, &mut random).await {
                        self.until_connected(recruiter_id, &mut random).await;
                    }
                }
                (Some(index), 38..53) => {
                    self.cancel(index, &mut random).await;
                    own.retain(|other| *other != index);
                }
                (Some(index), 53) => {
                    self.delete_as_django(index).await;
                    own.retain(|other| *other != index);
                }
                _ => match self.schedule(recruiter_id, &mut random).await {
                    Some(index) => own.push(index),
                    None => self.until_connected(recruiter_id, &mut random).await,
                },
            }
        }
    }

    /// A new interview; `None` unless it was acknowledged.
    async fn schedule(&self, recruiter_id: i64, random: &mut fastrand::Rng) -> Option<usize> {
        let now = Clock::System.now();
        let facts = Facts {
            starts_at: some_start(now, random),
            minutes: [30, 45, 60][random.usize(..3)],
            is_meet: random.u32(..4) > 0,
            is_cancelled: false,
        };
        let candidate_id = 1001 + random.i64(0..CANDIDATES);
        let mut body = wall(facts.starts_at, random);
        body["candidate_id"] = json!(candidate_id);
        body["job_id"] = json!(recruiter_id);
        body["duration_minutes"] = json!(facts.minutes);
        body["interview_type"] = json!(if facts.is_meet { "google_meet" } else { "phone" });
        let key = format!("{:032x}", random.u128(..));
        let index = {
            let mut all = self.known.lock().unwrap();
            all.push(Known::asked(recruiter_id, candidate_id, facts));
            all.len() - 1
        };
        let post = async |mut random: fastrand::Rng| {
            let path = "/api/company/google/create-interview/";
            self.insist(recruiter_id, Method::POST, path, Some(&body), Some(&key), &mut random).await
        };
        let (one, other) = match random.u32(..10) {
            0 => {
                self.figures.count("people: interviews scheduled by two equal requests at once");
                tokio::join!(post(random.fork()), post(random.fork()))
            }
            _ => (post(random.fork()).await, None),
        };
        self.note_scheduled(index, one.into_iter().chain(other).collect())
    }

    /// What came of it; its index if it was acknowledged.
    fn note_scheduled(&self, index: usize, answers: Vec<(u16, Value)>) -> Option<usize> {
        let known = &mut self.known.lock().unwrap()[index];
        let ids: Vec<i64> = answers.iter().filter_map(|(_, answer)| answer["interview_id"].as_i64()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "one key made several interviews: {ids:?}");
        match (ids.first(), answers.first()) {
            (Some(id), _) => {
                self.figures.count("operations: interviews scheduled");
                known.id = Some(*id);
                Some(index)
            }
            (None, Some((status, answer))) => {
                assert!(answer["needs_google_auth"] == true, "refused: {status} {answer}");
                self.figures.count("operations: refused, Google not being connected");
                known.is_refused = true;
                None
            }
            (None, None) => {
                self.figures.count("operations: never answered");
                known.in_doubt = Some(known.facts);
                None
            }
        }
    }

    /// Whether it was acknowledged.
    async fn change(&self, index: usize, random: &mut fastrand::Rng) -> bool {
        let before = self.known.lock().unwrap()[index].clone();
        let now = Clock::System.now();
        let mut after = before.facts;
        let mut body = json!({});
        if random.u32(..10) < 8 {
            after.starts_at = some_start(now, random);
            body = wall(after.starts_at, random);
        }
        if random.u32(..10) < 3 {
            after.minutes = [30, 45, 60, 90][random.usize(..4)];
            body["duration_minutes"] = json!(after.minutes);
        }
        if body == json!({}) || random.u32(..10) == 0 {
            after.is_meet = !after.is_meet;
            body["interview_type"] = json!(if after.is_meet { "google_meet" } else { "phone" });
        }
        let path = format!("/api/company/interviews/{}/", before.id.unwrap());
        let answer = self.insist(before.recruiter_id, Method::PATCH, &path, Some(&body), None, random).await;
        let known = &mut self.known.lock().unwrap()[index];
        match answer {
            Some((200, _)) => {
                self.figures.count("operations: changes");
                (known.facts, known.in_doubt) = (after, None);
                true
            }
            Some((status, answer)) => {
                assert!(answer["needs_google_auth"] == true, "a change was refused: {status} {answer}");
                self.figures.count("operations: refused, Google not being connected");
                false
            }
            None => {
                self.figures.count("operations: never answered");
                known.in_doubt = Some(after);
                false
            }
        }
    }

    async fn cancel(&self, index: usize, random: &mut fastrand::Rng) {
        let before = self.known.lock().unwrap()[index].clone();
        let path = format!("/api/company/interviews/{}/", before.id.unwrap());
        let answer = self.insist(before.recruiter_id, Method::DELETE, &path, None, None, random).await;
        let known = &mut self.known.lock().unwrap()[index];
        match answer {
            Some((200, _)) => {
                self.figures.count("operations: cancellations");
                known.facts.is_cancelled = true;
                if let Some(in_doubt) = &mut known.in_doubt {
                    in_doubt.is_cancelled = true;
                }
            }
            Some((status, answer)) => panic!("a cancellation was refused: {status} {answer}"),
            None => {
                self.figures.count("operations: never answered");
                known.in_doubt = Some(Facts { is_cancelled: true, ..known.in_doubt.unwrap_or(known.facts) });
            }
        }
    }

    async fn delete_as_django(&self, index: usize) {
        let id = {
            let known = &mut self.known.lock().unwrap()[index];
            known.is_deleted = true;
            known.id
        };
        // Asked before too, since the answer of the deletion may be lost.
        let before = self.until_answered("SELECT google_event_id FROM company_interview WHERE id = $1", id).await;
        let deleted =
            self.until_answered("DELETE FROM company_interview WHERE id = $1 RETURNING google_event_id", id).await;
        self.known.lock().unwrap()[index].left_event = deleted.or(before);
        self.figures.count("people: interviews deleted by Django");
    }

    /// PostgreSQL may be away.
    async fn until_answered(&self, sql: &'static str, id: Option<i64>) -> Option<String> {
        loop {
            match sqlx::query_scalar::<_, Option<String>>(sql).bind(id).fetch_optional(&self.world.database.pool).await
            {
                Ok(answer) => return answer.flatten(),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Connects whenever Google is not connected, and disconnects now and then.
    async fn keep_connected(self: Arc<Self>, recruiter_id: i64, mut random: fastrand::Rng) {
        loop {
            self.connect_if_necessary(recruiter_id, &mut random).await;
            tokio::time::sleep(Duration::from_millis(random.u64(500..4_000))).await;
            if random.u32(..25) == 0 {
                let path = "/api/company/google/disconnect/";
                if self.insist(recruiter_id, Method::POST, path, None, None, &mut random).await.is_some() {
                    self.figures.count("people: calendars disconnected");
                }
            }
        }
    }

    async fn until_connected(&self, recruiter_id: i64, random: &mut fastrand::Rng) {
        let path = "/api/company/google/check-connection/";
        while !self.is_enough()
            && !self
                .insist(recruiter_id, Method::GET, path, None, None, random)
                .await
                .is_some_and(|(_, connection)| connection["connected"] == true)
        {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn connect_if_necessary(&self, recruiter_id: i64, random: &mut fastrand::Rng) {
        loop {
            let path = "/api/company/google/check-connection/";
            let Some((_, connection)) = self.insist(recruiter_id, Method::GET, path, None, None, random).await else {
                continue;
            };
            if connection["connected"] == true {
                return;
            }
            let path = "/api/company/google/auth-url/";
            let Some((200, begun)) = self.insist(recruiter_id, Method::GET, path, None, None, random).await else {
                continue;
            };
            let url = begun["authorization_url"].as_str().unwrap();
            let back = self.world.google.allow_as(url, &account(recruiter_id)).unwrap();
            // To whichever server; its answer may be lost.
            let path = &back[back.find("/api/").unwrap()..];
            let url = format!("http://127.0.0.1:{}{path}", self.servers.some_port(random));
            if let Ok(answer) = self.http.get(url).send().await
                && answer.headers()["location"].to_str().unwrap().contains("success")
            {
                self.figures.count("people: calendars connected");
            }
        }
    }

    pub async fn reconnect_all(&self) {
        let mut random = fastrand::Rng::with_seed(0);
        for recruiter in 0..RECRUITERS {
            self.connect_if_necessary(recruiter_id(recruiter), &mut random).await;
        }
    }

    /// Asks one server or another until there is an answer that is final; `None` when patience ends before that.
    async fn insist(
        &self,
        recruiter_id: i64,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
        random: &mut fastrand::Rng,
    ) -> Option<(u16, Value)> {
        let token = access_token(Clock::System.now(), recruiter_id);
        let only_asks = method == Method::GET;
        let until_final = async {
            loop {
                let url = format!("http://127.0.0.1:{}{path}", self.servers.some_port(random));
                let mut request = self.http.request(method.clone(), url).bearer_auth(&token);
                if let Some(key) = key {
                    request = request.header("Idempotency-Key", key);
                }
                if let Some(body) = body {
                    request = request.json(body);
                }
                if let Some(answer) = self.ask(request).await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(random.u64(100..1_500))).await;
            }
        };
        tokio::select! {
            answer = until_final => Some(answer),
            () = tokio::time::sleep(PERSISTENCE) => None,
            () = self.until_over(), if !only_asks => None,
        }
    }

    async fn until_over(&self) {
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One request; its answer if that is final.
    async fn ask(&self, request: RequestBuilder) -> Option<(u16, Value)> {
        self.figures.count("people: HTTP requests");
        if let Ok(answer) = request.send().await {
            let status = answer.status().as_u16();
            let body = answer.json::<Value>().await;
            if status >= 500 {
                let database = if self.servers.has_database() { "with" } else { "without" };
                let is_unknown =
                    body.as_ref().is_ok_and(|body| body["detail"].as_str().is_some_and(is_told_as_unknown));
                let how = if is_unknown { ", not known whether it was done" } else { "" };
                self.figures.count(format!("people: answers {status} {database} PostgreSQL{how}"));
            }
            if let Ok(body) = body
                && status < 500
                && status != 409
            {
                return Some((status, body));
            }
        }
        self.figures.count("people: repeated HTTP requests");
        None
    }
}

/// Some day in the next year; now and then so soon that a reminder is due within a minute.
fn some_start(now: DateTime<Utc>, random: &mut fastrand::Rng) -> DateTime<Utc> {
    if random.u32(..12) == 0 {
        let due_in = TimeDelta::seconds(random.i64(25..60));
        let ahead = if random.bool() { TimeDelta::days(1) } else { TimeDelta::hours(1) };
        return (now + ahead + due_in).duration_trunc(TimeDelta::seconds(1)).unwrap();
    }
    let today = now.duration_trunc(TimeDelta::days(1)).unwrap();
    today + TimeDelta::days(random.i64(3..365)) + TimeDelta::minutes(5 * random.i64(0..288))
}

/// The instant as date, time and zone of somebody somewhere.
fn wall(instant: DateTime<Utc>, random: &mut fastrand::Rng) -> Value {
    let (zone, offset) = ZONES[random.usize(..ZONES.len())];
    let local: NaiveDateTime = instant.naive_utc() + TimeDelta::minutes(offset);
    json!({"date": local.date(), "time": local.time().format("%H:%M:%S").to_string(), "timezone": zone})
}

/// Whether an answer says that a commit got none.
fn is_told_as_unknown(detail: &str) -> bool {
    detail.starts_with("It is not known")
}
