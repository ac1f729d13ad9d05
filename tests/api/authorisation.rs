//! Who may do what: every route, asked for by everybody, about what is his own, somebody else's, and nobody's.
//!
//! The table is held against the door's own list of URLs, so a route without a row fails. Each cell is asked through
//! the front door. Whatever is refused changes no row, sends no mail and asks Google nothing; no answer has a word of
//! people with whom the caller has nothing to do; and where somebody else's is refused like what does not exist, the
//! two answers are the same.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use interviews::app;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::support::{cookie_client::CookieClient, page::Page, *};

/// A row is a route, what it is asked about (`objects`), and a cell for each column of callers (`Caller::column`).
///
/// A cell is a status, or what kind of redirect: `login` (to sign in), `home` (to one's own dashboard), `done` and
/// `lost` (Google's answer to a connection was used, or not); `-`: not asked. Of three, the first is for the caller's
/// own, the second for somebody else's, the third for nobody's. `[/company]` stands for two routes. Last come those
/// that end what others need.
const TABLE: &str = "
                                                      about         nobody         bad            inactive       link           candidate      recruiter      no company
GET    /healthz                                       -             200            200            200            200            200            200            200
GET    /readyz                                        -             200            200            200            200            200            200            200
GET    /metrics                                       -             200            200            200            200            200            200            200
GET    /openapi.json                                  -             200            200            200            200            200            200            200
GET    /swagger/                                      -             200            200            200            200            200            200            200
GET    /swagger/{file}                                -             200            200            200            200            200            200            200
GET    /redoc/                                        -             200            200            200            200            200            200            200
GET    /redoc/{file}                                  -             200            200            200            200            200            200            200
GET    /interviews/static/{file}                      -             200            200            200            200            200            200            200
GET    /interviews/local-times/                       -             200            200            200            200            200            200            200

POST   /api/users/login/                              -             400            401            401            400            400            400            400
POST   /api/users/login/                              password      400            400            403            -              200            200            200
GET    /api/users/profile/                            -             401            401            401            401            200            200            200
POST   /api/users/google-auth/                        -             400            401            401            400            400            400            400

GET    /api/company/google/check-connection/          -             401            401            401            401            200            200            200
GET    /api/company/google/auth-url/                  -             401            401            401            401            200            200            200
GET    /api/company/google/connect/                   -             401            401            401            401            200            200            200
GET    /api/company/google/connect/                   browser       login          login          login          login          302            302            302
POST   /api/company/google/connect/                   -             401            401            401            401            200            200            200
GET    /api/company/google/callback/                  -             lost           401            401            lost           lost           lost           lost

POST   /api/company/google/create-interview/          job           401            401            401            401            403            200/404/404    403
POST   /api/company/google/create-interview/          company       401            401            401            401            403            200/404/404    403
POST   /api/company/google/create-interview/          person        401            401            401            401            403            200/400/404    403
POST   /api/company/create-interview/                 job           401            401            401            401            403            201/404/404    403
POST   /api/company/create-interview/                 company       401            401            401            401            403            201/404/404    403
POST   /api/company/create-interview/                 person        401            401            401            401            403            201/400/404    403

GET    /api[/company]/interviews/                     -             401            401            401            401            200            200            200
GET    /api[/company]/interviews/analytics/           -             401            401            401            401            403            200            403
POST   /api[/company]/interviews/test-connection/     -             401            401            401            401            200            200            200
GET    /api[/company]/interviews/{id}/                interview     401            401            401            401            200/403/404    200/403/404    200/403/404
PATCH  /api[/company]/interviews/{id}/                interview     401            401            401            401            403/403/404    200/403/404    200/403/404
DELETE /api[/company]/interviews/{id}/                interview     401            401            401            401            403/403/404    200/403/404    200/403/404
POST   /api[/company]/interviews/{id}/cancel/         interview     401            401            401            401            403/403/404    200/403/404    200/403/404
GET    /api[/company]/interviews/{id}/join/           interview     401            401            401            401            200/403/404    200/403/404    200/403/404
POST   /api[/company]/interviews/{id}/joined/         interview     401            401            401            401            200/403/404    200/403/404    200/403/404
POST   /api[/company]/interviews/{id}/left/           interview     401            401            401            401            200/403/404    200/403/404    200/403/404
GET    /api[/company]/interviews/{id}/calendar.ics    interview     401            401            401            401            200/403/404    200/403/404    200/403/404
PATCH  /api[/company]/interviews/{id}/                cancelled     401            401            401            401            403/403/404    409/403/404    403/403/404
DELETE /api[/company]/interviews/{id}/                cancelled     401            401            401            401            403/403/404    200/403/404    403/403/404

GET    /api/notifications/notifications/              -             401            401            401            401            200            200            200
POST   /api/notifications/notifications/{nid}/read/   notification  401            401            401            401            200/404/404    200/404/404    200/404/404

GET    /                                              -             login          login          login          login          home           home           home
GET    /login/                                        -             200            200            200            200            home           home           home
POST   /login/                                        password      400            400            403            -              home           home           home
GET    /dashboard/                                    -             login          login          login          login          home           200            200
GET    /dashboard/jobseeker/                          -             login          login          login          login          200            200            200
POST   /dashboard/mails/{mail}/resend/                mail          401            401            401            401            404            303/404/404    404
GET    /dashboard/interviews/{id}/change/             interview     login          login          login          login          404            200/404/404    200/404/404
POST   /dashboard/interviews/{id}/change/             interview     401            401            401            401            404            303/404/404    303/404/404
GET    /dashboard/interviews/{id}/cancel/             interview     login          login          login          login          404            200/404/404    200/404/404
POST   /dashboard/interviews/{id}/cancel/             interview     401            401            401            401            404            303/404/404    303/404/404
GET    /dashboard/schedule/                           -             login          login          login          login          home           200            home
GET    /dashboard/schedule/                           job           login          login          login          login          home           200/404/404    home
POST   /dashboard/schedule/                           job           401            401            401            401            home           303/404/404    home
POST   /dashboard/schedule/                           person        401            401            401            401            home           303/400/404    home
GET    /dashboard/schedule/preview/                   person        login          login          login          login          200            200            200
GET    /dashboard/schedule/preview/                   interview     login          login          login          login          200            200            200

GET    /interviews/{id}/join/                         interview     401            401            401            200/403/403    200/403/404    200/403/404    200/403/404
GET    /interviews/{id}/join/                         cancelled     401            401            401            200/403/403    200/403/404    200/403/404    200/403/404
POST   /interviews/{id}/join/                         interview     401            401            401            303/403/403    303/403/404    303/403/404    303/403/404
POST   /interviews/{id}/join/                         cancelled     401            401            401            409/403/403    409/403/404    409/403/404    409/403/404
POST   /interviews/{id}/left/                         interview     401            401            401            303/403/403    303/403/404    303/403/404    303/403/404
POST   /interviews/{id}/left/                         cancelled     401            401            401            303/403/403    303/403/404    303/403/404    303/403/404
GET    /interviews/{id}/calendar.ics                  interview     401            401            401            200/403/403    200/403/404    200/403/404    200/403/404
GET    /interviews/{id}/calendar.ics                  cancelled     401            401            401            200/403/403    200/403/404    200/403/404    200/403/404

POST   /dashboard/google/connect/                     -             401            401            401            401            303            303            303
GET    /api/company/google/callback/                  state         done/done/lost done/done/lost done/done/lost done/done/lost done/lost/lost done/lost/lost done/lost/lost
POST   /api/company/google/disconnect/                -             401            401            401            401            200            200            200
DELETE /api/company/google/disconnect/                -             401            401            401            401            200            200            200
POST   /dashboard/google/disconnect/                  -             401            401            401            401            303            303            303
POST   /logout/                                       -             login          login          login          login          login          login          login
";

/// What a refusal may write all the same: how often a sign-in has failed, and that a state is used up.
const BOOKKEEPING: [(&str, &str); 3] = [
    ("/api/users/login/", "ivs_login_throttle"),
    ("/login/", "ivs_login_throttle"),
    ("/api/company/google/callback/", "company_oauthstate"),
];

/// GETs that write: each begins a connection.
const WRITING: [&str; 2] = ["/api/company/google/auth-url/", "/api/company/google/connect/"];

/// Words that stand in everything of one person, company or interview, and who may read them.
const MARKS: [(&str, &[i64]); 16] = [
    ("markrita", &[RITA, CARL]),
    ("rita@gmail.test", &[RITA, CARL]),
    ("markacme", &[RITA, CARL]),
    ("markcarl", &[RITA, CARL]),
    ("markotto", &[OTTO, DANA]),
    ("otto@gmail.test", &[OTTO, DANA]),
    ("markother", &[OTTO, DANA]),
    ("markdana", &[DANA, OTTO, NORA]),
    ("marknora", &[NORA, DANA]),
    ("markines", &[INES]),
    ("markfirst", &[RITA, CARL]),
    ("markgone", &[RITA, CARL]),
    ("marksecond", &[OTTO, DANA]),
    ("marklost", &[OTTO, DANA]),
    ("markthird", &[NORA, DANA]),
    ("markdjango", &[CARL]),
];

/// Nobody's ids: a free one, and one that no column holds. Long, so that they stand nowhere by chance.
const MISSING: [&str; 2] = ["987654321987", "99999999999999999999"];

const NONSENSE: &str = "who has nonsense";
/// At the doors of the API.
const SESSION_ALONE: &str = "who has a session alone";
/// At the doors of pages.
const BEARER_ALONE: &str = "who has a bearer token alone";

#[derive(Clone, Debug)]
struct Row {
    method: Method,
    path: String,
    about: &'static str,
    cells: [&'static str; 7],
}

impl Row {
    fn all() -> Vec<Row> {
        let mut rows = Vec::new();
        for line in TABLE.lines().skip(2).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [method, path, about, cells @ ..] = &words[..] else { panic!("{line}") };
            let cells: [&str; 7] = cells.try_into().unwrap_or_else(|_| panic!("{line}"));
            let both = BTreeSet::from([path.replace("[/company]", "/company"), path.replace("[/company]", "")]);
            let row = |path| Row { method: method.parse().unwrap(), path, about, cells };
            rows.extend(both.into_iter().map(row));
        }
        rows
    }

    /// What is expected about one's own, somebody else's, and nobody's.
    fn expected(&self, caller: &Caller) -> [&'static str; 3] {
        match self.cells[caller.column].split('/').collect::<Vec<_>>()[..] {
            [all] => [all; 3],
            [own, others, nobodys] => [own, others, nobodys],
            _ => panic!("{self:?}"),
        }
    }

    fn is_get(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// By bearer token; pages, and what Google and dashboards lead browsers to, by session.
    fn is_api(&self) -> bool {
        self.path.starts_with("/api/") && !["browser", "state", "password"].contains(&self.about)
    }

    /// Whether an answer of this kind may have changed something.
    fn changes(&self, expected: &str) -> bool {
        let is_done = match expected {
            "login" => self.path == "/logout/",
            "home" => self.path == "/login/",
            "lost" => false,
            "done" => true,
            status => status < "400",
        };
        is_done && (!self.is_get() || expected == "done" || WRITING.contains(&self.path.as_str()))
    }
}

/// Somebody with a credential.
#[derive(Clone, Debug, Default)]
struct Caller {
    name: String,
    column: usize,
    /// Who may read what this credential opens, if it opens something.
    user: i64,
    email: &'static str,
    bearer: Option<String>,
    cookie: Option<String>,
    form_token: String,
    /// Comes with a mailed link's token instead.
    by_link: bool,
}

struct Meeting {
    id: i64,
    candidate: i64,
    recruiter: i64,
    is_cancelled: bool,
    /// Of the link that its candidate was mailed.
    token: String,
    /// What its recruiter's pages carry.
    digest: String,
}

/// All tables, each by a hash; how often Google was asked, and how many mails were sent.
#[derive(Clone, Debug, PartialEq)]
struct Traces {
    tables: BTreeMap<String, String>,
    google: usize,
    mails: usize,
}

struct Matrix {
    app: TestApp,
    callers: Vec<Caller>,
    meetings: Vec<Meeting>,
    mails: Vec<(String, i64)>,
    notifications: Vec<(String, i64)>,
    /// Hashes all tables.
    hashing: String,
    days: Cell<u32>,
    read: RefCell<BTreeSet<&'static str>>,
    asked: Cell<usize>,
    last: RefCell<Option<Traces>>,
    /// Who has asked since then.
    callers_since: RefCell<BTreeSet<String>>,
}

/// Django's rows: two companies with a recruiter and a candidate each, a recruiter without a company, somebody
/// inactive.
const PEOPLE: &str = "
    DELETE FROM company_interview; DELETE FROM job_shortlist;
    UPDATE users_user SET first_name = 'Mark' || username, email = 'mark' || username || '@x.test',
                          username = 'mark' || username, password = 'pbkdf2_sha256$870000$contractsalt0123456789$dsKsiUXpSLWUDIG72X/4B4Bxq9aA/rTZc3oDJThxs4M=';
    UPDATE company_company SET name = CASE id WHEN 11 THEN 'markacme' ELSE 'markother' END;
    UPDATE job_job SET title = CASE id WHEN 21 THEN 'Builder markacme' ELSE 'Analyst markother' END;
    INSERT INTO job_application SELECT (jsonb_populate_record(a, jsonb_build_object('id', n, 'user_id', u, 'job_id', j))).*
        FROM job_application a, (VALUES (32, 202, 22), (33, 203, 21)) v(n, u, j);
    SELECT setval(pg_get_serial_sequence('company_interview', 'id'), 7123456000),
           setval(pg_get_serial_sequence('notifications_notification', 'id'), 8123456000);
    UPDATE users_user SET is_active = true WHERE id = 203;
    INSERT INTO ivs_portal_session
        SELECT sha256(('session-of-' || id)::bytea), id, sha256(password::bytea), timestamptz '2026-12-01' FROM users_user
        UNION ALL SELECT sha256('session-that-is-over'), id, sha256(password::bytea), '2026-11-20 12:00Z' FROM users_user WHERE id = 101;";

/// What the API cannot make: interviews and notifications as Django writes them.
const OTHERS: &str = "
    INSERT INTO company_interview
    SELECT (jsonb_populate_record(i, jsonb_build_object('id', v.id, 'candidate_id', c, 'recruiter_id', r, 'note', m,
                'room_id', left(m, 8), 'job_title', m, 'ical_organizer', NULL, 'job_id', j, 'location', m, 'google_event_id', e, 'ical_uid', m,
                'interview_type', k, 'meeting_link', CASE WHEN e IS NULL THEN '' ELSE 'https://meet.google.com/' || m END))).*
    FROM company_interview i,
         (VALUES (7200000003, 202, 103, 'markthird', 'phone', NULL, NULL),
                 (7200000004, 201, NULL, 'markdjango', 'custom', 21, 'evtmarkdjango')) v(id, c, r, m, k, j, e)
    WHERE i.note = 'markfirst';
    INSERT INTO notifications_notification (notification_type, message, timestamp, is_read, user_id)
    SELECT 'x', 'mark' || n, now(), false, u FROM (VALUES ('rita', 101), ('otto', 102), ('nora', 103)) v(n, u);
    UPDATE company_interview
    SET interview_type = 'google_meet', meeting_link = 'https://meet.google.com/' || note, google_event_id = 'evt' || note,
        ical_uid = note || '@google.test', location = note
    WHERE job_id IS NOT NULL AND recruiter_id IS NOT NULL;
    UPDATE ivs_mail SET state = 'refused';
    UPDATE users_user SET is_active = false WHERE id = 203;";

impl Matrix {
    async fn new() -> Matrix {
        let app = TestApp::start().await;
        app.execute(PEOPLE).await;
        let mut people = Vec::new();
        for (column, user, name, email) in [
            (4, CARL, "Carl", "markcarl@x.test"),
            (4, DANA, "Dana", "markdana@x.test"),
            (5, RITA, "Rita", "markrita@x.test"),
            (5, OTTO, "Otto", "markotto@x.test"),
            (6, NORA, "Nora", "marknora@x.test"),
            (2, INES, "Ines", "markines@x.test"),
        ] {
            let (bearer, cookie) = (Some(app.user(user).token), Some(format!("session-of-{user}")));
            let mut person = Caller { name: name.to_owned(), column, user, email, bearer, cookie, ..Caller::default() };
            let page = send(person.with_cookie(app.request(Method::GET, "/dashboard/jobseeker/"))).await;
            person.form_token = Page::of(&page).form_token().to_owned();
            people.push(person);
        }

        let mut meetings = Vec::new();
        for (recruiter, candidate, mark, is_cancelled) in [
            (RITA, CARL, "markfirst", false),
            (RITA, CARL, "markgone", true),
            (OTTO, DANA, "marksecond", false),
            (OTTO, DANA, "marklost", true),
        ] {
            let user = match is_cancelled {
                false => app.connected(recruiter).await,
                true => app.user(recruiter),
            };
            let (job, company) = if recruiter == RITA { (21, 11) } else { (22, 12) };
            let body = json!({"candidate_id": candidate, "job_id": job, "company_id": company, "date": "2026-11-20",
                "time": "12:05", "notes": mark, "interview_type": "phone"});
            let answer = user.schedule_otherwise(body).await;
            let id = answer.json()["interview_id"].as_i64().unwrap_or_else(|| panic!("{answer:?}"));
            let to = people.iter().find(|caller| caller.user == candidate).unwrap().email;
            let link = app.mailed_link(to).await;
            assert!(link.contains(&format!("/{id}/join/")), "{link}");
            let token = link.split("token=").nth(1).unwrap().to_owned();
            if is_cancelled {
                let path = format!("/api/interviews/{id}/cancel/");
                assert_eq!(user.post(&path, json!({ "reason": mark })).await.status, 200);
            }
            meetings.push(Meeting { id, candidate, recruiter, is_cancelled, token, digest: String::new() });
        }
        app.execute(OTHERS).await;
        app.run_jobs().await;
        for (id, candidate, recruiter) in [(7200000003, DANA, NORA), (7200000004, CARL, 0)] {
            let nothing = || "none".to_owned();
            meetings.push(Meeting {
                id,
                candidate,
                recruiter,
                is_cancelled: false,
                token: nothing(),
                digest: nothing(),
            });
        }
        for meeting in &mut meetings {
            let Some(recruiter) = people.iter().find(|caller| caller.user == meeting.recruiter) else { continue };
            let page = app.request(Method::GET, &format!("/dashboard/interviews/{}/change/", meeting.id));
            let page = send(recruiter.with_cookie(page)).await;
            if !meeting.is_cancelled {
                meeting.digest = Page::of(&page).one("[name=digest]").attribute("value").unwrap().to_owned();
            }
        }
        let mails =
            "SELECT m.id::text, i.recruiter_id FROM ivs_mail m JOIN company_interview i ON i.id = m.interview_id
                     WHERE i.cancelled_at IS NULL AND m.user_id = i.candidate_id";
        let mails = sqlx::query_as(mails).fetch_all(app.db()).await.unwrap();
        let notifications = "SELECT DISTINCT ON (user_id) id::text, user_id FROM notifications_notification";
        let notifications = sqlx::query_as(notifications).fetch_all(app.db()).await.unwrap();
        let hashing = "SELECT string_agg(format(
                           'SELECT %L, md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '''')) FROM %I.%I t',
                           table_name, table_schema, table_name), ' UNION ALL ')
             FROM information_schema.tables
             WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')";
        let hashing = sqlx::query_scalar(hashing).fetch_one(app.db()).await.unwrap();
        let callers = strangers(&app, &people, &meetings[0].token).into_iter().chain(people).collect();
        let (days, read, asked, last, callers_since) = Default::default();
        let matrix =
            Matrix { app, callers, meetings, mails, notifications, hashing, days, read, asked, last, callers_since };
        matrix.last.replace(Some(matrix.traces().await));
        matrix
    }

    async fn traces(&self) -> Traces {
        let hashed: Vec<(String, String)> =
            sqlx::query_as(AssertSqlSafe(self.hashing.clone())).fetch_all(self.app.db()).await.unwrap();
        let (google, mails) = (self.app.google.requests().len(), self.app.mailbox.mails().len());
        Traces { tables: hashed.into_iter().collect(), google, mails }
    }

    /// What is the caller's own, somebody else's, and nobody's.
    fn objects(&self, about: &str, caller: &Caller) -> [Vec<String>; 3] {
        let user = match caller.column {
            0..4 => CARL,
            _ => caller.user,
        };
        let missing = || MISSING.map(str::to_owned).to_vec();
        let split = |all: Vec<(String, bool)>, nobodys| {
            let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, is_own)| *is_own);
            [own, others].map(|all| all.into_iter().map(|(id, _)| id).collect()).into_iter().chain([nobodys])
        };
        let company = |ids: [i64; 2]| {
            let owned = |(owner, id): ([i64; 2], i64)| (id.to_string(), owner.contains(&user));
            [([RITA, CARL], ids[0]), ([OTTO, DANA], ids[1])].map(owned).to_vec()
        };
        let objects: Vec<Vec<String>> = match about {
            "interview" | "cancelled" => {
                let meetings = self.meetings.iter().filter(|meeting| meeting.is_cancelled == (about == "cancelled"));
                let is_own = |meeting: &Meeting| meeting.candidate == user || meeting.recruiter == user;
                split(meetings.map(|meeting| (meeting.id.to_string(), is_own(meeting))).collect(), missing())
            }
            "notification" => {
                let all = self.notifications.iter().map(|(id, owner)| (id.clone(), *owner == user));
                split(all.collect(), missing())
            }
            "mail" => {
                let all = self.mails.iter().map(|(id, owner)| (id.clone(), *owner == user));
                split(all.collect(), vec!["00000000-0000-4000-8000-000000000000".into(), "nonsense".into()])
            }
            "job" => split(company([21, 22]), missing()[..1].to_vec()),
            "company" => split(company([11, 12]), vec!["987654321".into()]),
            // Who is inactive counts as missing.
            "person" => split(company([CARL, DANA]), vec![MISSING[0].to_owned(), INES.to_string()]),
            "state" => {
                let others = if user == RITA { OTTO } else { RITA };
                split(vec![(user.to_string(), true), (others.to_string(), false)], vec!["0".into()])
            }
            _ => split(vec![(String::new(), true)], vec![]),
        }
        .collect();
        objects.try_into().unwrap()
    }

    /// Another one like it, for somebody to change.
    async fn copy(&self, interview: &str) -> String {
        let sql = "INSERT INTO company_interview
             SELECT (jsonb_populate_record(i, jsonb_build_object(
                         'id', nextval(pg_get_serial_sequence('company_interview', 'id')),
                         'room_id', left(md5(random()::text), 8)))).*
             FROM company_interview i WHERE id = $1::bigint RETURNING id::text";
        sqlx::query_scalar(sql).bind(interview.parse::<i64>().unwrap()).fetch_one(self.app.db()).await.unwrap()
    }

    /// Where Google sends a browser after somebody's consent.
    async fn consent(&self, user: &str) -> String {
        if user == "0" {
            return "/api/company/google/callback/?code=x&state=nobodys".to_owned();
        }
        let user: i64 = user.parse().unwrap();
        let account = if [OTTO, DANA].contains(&user) { "otto@gmail.test" } else { "rita@gmail.test" };
        let url = self.app.user(user).authorization_url().await;
        self.app.google.allow_as(&url, account).unwrap()
    }

    /// The request of a cell, as somebody makes it who knows everything but the credentials.
    async fn request(&self, row: &Row, caller: &Caller, object: &str, own: &str) -> RequestBuilder {
        let mut path = row.path.clone();
        for name in ["{id}", "{nid}", "{mail}"] {
            path = path.replace(name, object);
        }
        path = path.replace("{file}", if path.starts_with("/interviews") { "app.js" } else { "swagger-ui.css" });
        let mut query: Vec<(&str, &str)> = match (row.path.as_str(), row.about) {
            ("/interviews/local-times/", _) => vec![("zone", "UTC"), ("at", "0")],
            ("/dashboard/schedule/", "job") if row.is_get() => vec![("job", object)],
            ("/dashboard/schedule/preview/", about) => {
                let about = if about == "person" { "candidate_id" } else { "interview_id" };
                vec![(about, object), ("date", "2026-11-20"), ("time", "12:05"), ("timezone", "UTC")]
            }
            _ => vec![],
        };
        if row.about == "state" {
            path = self.consent(object).await;
        }
        let meeting = self.meetings.iter().find(|meeting| meeting.id.to_string() == own);
        if caller.by_link && row.about != "state" {
            query.push(("token", meeting.map_or(&self.meetings[0].token, |meeting| &meeting.token)));
        }
        if !query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            path = format!("{path}?{query}");
        }
        let request = self.app.request(row.method.clone(), &path);
        let request = match row.is_api() {
            true => caller.with_bearer(request),
            false => caller.with_cookie(request),
        };
        if row.is_get() {
            return request;
        }
        let about = |name: &str, default: i64| {
            let is_it =
                matches!((row.about, name), ("job", "job_id") | ("company", "company_id") | ("person", "candidate_id"));
            if is_it { object.to_owned() } else { default.to_string() }
        };
        let (candidate, job, company) =
            if [OTTO, DANA].contains(&caller.user) { (DANA, 22, 12) } else { (CARL, 21, 11) };
        self.days.set(self.days.get() + 1);
        let date = format!("{}-01-{:02}", 2030 + self.days.get() / 28, 1 + self.days.get() % 28);
        let asked = json!({"candidate_id": about("candidate_id", candidate), "job_id": about("job_id", job),
            "company_id": about("company_id", company), "date": date, "time": "14:00", "timezone": "UTC",
            "interview_type": if row.path.contains("/google/") { "google_meet" } else { "phone" },
            "duration_minutes": "60", "key": format!("key {}", self.days.get())});
        let digest = meeting_digest(&self.meetings, object, own);
        let mut fields = match row.path.as_str() {
            path if path.ends_with("create-interview/") => asked,
            "/dashboard/schedule/" => asked,
            "/login/" | "/api/users/login/" if row.about == "password" => {
                let (email, password) = match caller.column {
                    0 => ("nobody@x.test", PASSWORD),
                    1 => (caller.email, "wrong"),
                    _ => (caller.email, PASSWORD),
                };
                json!({"email": email, "password": password})
            }
            path if path.starts_with("/api/users/") || path.ends_with("/resend/") => json!({}),
            _ => json!({"note": "changed", "notes": "changed", "reason": "why not", "digest": digest}),
        };
        if row.path.starts_with("/api/") {
            return request.json(&fields);
        }
        fields["form_token"] = caller.form_token.clone().into();
        if (row.method.as_str(), row.path.as_str()) == ("POST", "/login/") {
            let mut visitor = CookieClient::new(&self.app);
            let page = visitor.get("/login/").await;
            fields["form_token"] = Page::of(&page).form_token().into();
            return visitor.request(Method::POST, "/login/").form(&fields);
        }
        request.form(&fields)
    }

    /// Sends a request; the answer has no word that is not for the caller.
    async fn ask(&self, what: &str, request: RequestBuilder, caller: &Caller) -> Answer {
        let answer = send(request).await;
        self.asked.set(self.asked.get() + 1);
        self.callers_since.borrow_mut().insert(caller.name.clone());
        let shown = format!("{:?} {}", answer.headers, answer.text).to_lowercase();
        // The address that was typed a moment ago.
        let shown = shown.replace(&format!("value=\"{}\"", caller.email), "");
        for (mark, readers) in MARKS {
            if shown.contains(mark) {
                assert!(readers.contains(&caller.user), "{what} is told of {mark}: {answer:?}");
                self.read.borrow_mut().insert(mark);
            }
        }
        answer
    }

    /// Whatever was asked since the last time has left no trace.
    async fn unchanged(&self, what: &str, row: &Row) {
        let traces = self.traces().await;
        let mut before = self.last.replace(Some(traces.clone())).unwrap();
        let mut after = traces;
        for (_, table) in BOOKKEEPING.iter().filter(|(path, _)| *path == row.path) {
            before.tables.remove(*table);
            after.tables.remove(*table);
        }
        let callers = self.callers_since.take();
        assert_eq!(before, after, "{what} has changed something, asked by one of {callers:?}");
    }

    /// Asks for those cells of a row that may change something, or for the others.
    async fn check(&self, row: &Row, changing: bool) {
        for (number, caller) in self.callers.iter().enumerate().filter(|(_, caller)| caller.comes(row)) {
            let objects = self.objects(row.about, caller);
            let mut of_others: Option<(&str, String, Answer)> = None;
            for (which, expected) in row.expected(caller).into_iter().enumerate() {
                let is_user = caller.is_user();
                // The API looks at credentials first: with bad ones it is asked about what somebody wants most.
                let is_enough = row.is_api() && !is_user && caller.name != "nobody" && which > 0;
                if expected == "-" || row.changes(expected) != changing || is_enough {
                    continue;
                }
                // Of those who get nowhere, one object each.
                for object in objects[which].iter().take(if is_user { 9 } else { 1 }) {
                    let own = if which == 0 { object } else { objects[0].first().unwrap_or(object) };
                    let is_copied =
                        changing && which == 0 && is_user && ["interview", "cancelled"].contains(&row.about);
                    let copy = if is_copied { self.copy(object).await } else { object.clone() };
                    let request = self.request(row, caller, &copy, own).await;
                    let what = format!("{} {} about {} {object} by {}", row.method, row.path, row.about, caller.name);
                    let answer = self.ask(&what, request, caller).await;
                    let came = outcome(&answer, expected);
                    assert_eq!(came, expected, "{what}: {answer:?}");
                    self.check_words(&what, row, caller, &answer);
                    match (which, &of_others) {
                        (1, _) => of_others = Some((expected, object.clone(), answer)),
                        // A state is a secret of its own.
                        (2, Some((others, id, other))) if *others == expected && row.about != "state" => {
                            let (there, nowhere) = (without(other, id), without(&answer, object));
                            assert_eq!(there, nowhere, "{what} tells that somebody else's exists");
                        }
                        _ => {}
                    }
                    if row.is_get() && !changing && row.about != "state" && number % 3 == 0 {
                        let head =
                            self.request(&Row { method: Method::HEAD, ..row.clone() }, caller, object, own).await;
                        let head = self.ask(&what, head, caller).await;
                        assert_eq!((outcome(&head, expected).as_str(), head.text.as_str()), (expected, ""), "{what}");
                    }
                }
            }
        }
        match changing {
            true => self.app.run_jobs().await,
            false => self.unchanged(&format!("{row:?}"), row).await,
        }
    }

    /// The contract's own words of a refusal.
    fn check_words(&self, what: &str, row: &Row, caller: &Caller, answer: &Answer) {
        let status = answer.status.as_u16();
        let says = |text: &str| assert!(answer.text.contains(text), "{what} does not say {text}: {answer:?}");
        if !row.path.starts_with("/api/") {
            let heading = match (status, row.path.as_str()) {
                (_, "/login/") => return,
                (401, _) => "Please sign in",
                (403, _) if caller.by_link => "This link does not open an interview",
                (403, _) => "This interview is not yours",
                (404, "/dashboard/schedule/") if row.about == "person" => "This person cannot be invited any more.",
                (404, path) if path.starts_with("/interviews/") => "This interview does not exist",
                (404, _) => "This page does not exist",
                _ => return,
            };
            return says(heading);
        }
        let missing = |what: &str| {
            json!({"error": format!("{what} not found"), "detail": format!("No {} matches the given query.",
            if what == "Candidate" { "User" } else { what })})
        };
        let refused = |text: &str| json!({ "error": text });
        let (is_join, is_cancel) =
            (["join/", "joined/", "left/"].iter().any(|end| row.path.ends_with(end)), row.path.ends_with("cancel/"));
        let expected = match (status, row.about) {
            (401, _) if row.about == "browser" => return,
            (401, _) => match caller.column {
                1 => return says("\"code\":"),
                2 => json!({"detail": "User is inactive", "code": "user_inactive"}),
                _ => json!({"detail": "Authentication credentials were not provided."}),
            },
            (403, "interview" | "cancelled") => refused(match row.method {
                Method::PATCH => "You are not authorized to change this interview",
                Method::DELETE => "You are not authorized to cancel this interview",
                _ if is_cancel => "You are not authorized to cancel this interview",
                _ if is_join => "You are not authorized to join this interview",
                _ => "You are not authorized to view this interview",
            }),
            (403, "password") => refused("Email not verified."),
            (403, "-") => refused("Only recruiters with a company can see interview analytics."),
            (403, _) => refused("Only recruiters with a company can schedule interviews."),
            (404, "interview" | "cancelled") => missing("Interview"),
            (404, "notification") => json!({"detail": "Notification not found."}),
            (404, "job") => missing("Job"),
            (404, "company") => missing("Company"),
            (404, _) => missing("Candidate"),
            (400, "person") => refused("This candidate has not applied to this job."),
            _ => return,
        };
        assert_eq!(answer.json(), expected, "{what}");
    }

    /// A form with another session's token, or without one, does nothing.
    async fn check_forged(&self, row: &Row) {
        for (number, caller) in self.callers.iter().enumerate().filter(|(_, caller)| caller.is_user()) {
            let Some(own) = self.objects(row.about, caller)[0].first().cloned() else { continue };
            let others = &self.callers[if caller.user == RITA { number + 1 } else { number - 1 }].form_token;
            for form_token in [others.clone(), String::new()] {
                let forged = Caller { form_token, ..caller.clone() };
                let request = self.request(row, &forged, &own, &own).await;
                let what = format!("forged {} {} {own} by {}", row.method, row.path, caller.name);
                let answer = self.ask(&what, request, caller).await;
                let says_so = answer.text.contains("This page was out of date");
                assert!(answer.status == 403 && says_so, "{what}: {answer:?}");
            }
        }
        self.unchanged(&format!("a forged {row:?}"), row).await;
    }

    /// What every path has besides its own methods: a description, and a refusal of the others.
    async fn check_other_methods(&self, row: &Row) {
        // One of each kind.
        let kinds = ["nobody", NONSENSE, "Ines", "Carl's link", "Rita"];
        for caller in self.callers.iter().filter(|caller| kinds.contains(&caller.name.as_str())) {
            let own = self.objects(row.about, caller).concat().swap_remove(0);
            let is_refused = row.is_api() && row.expected(caller)[0] == "401";
            for (method, status) in [(Method::OPTIONS, 200), (Method::PUT, 405)] {
                let request = self.request(&Row { method: method.clone(), ..row.clone() }, caller, &own, &own).await;
                let what = format!("{method} {} by {}", row.path, caller.name);
                let answer = self.ask(&what, request, caller).await;
                assert_eq!(answer.status, if is_refused { 401 } else { status }, "{what}: {answer:?}");
            }
        }
        self.unchanged(&format!("another method of {row:?}"), row).await;
    }
}

impl Caller {
    /// Somebody with an account that is in use, and with good credentials.
    fn is_user(&self) -> bool {
        self.column > 3
    }

    /// Whether the table has a cell for this row and somebody who comes like this.
    fn comes(&self, row: &Row) -> bool {
        match (self.name.as_str(), row.about) {
            // Passwords are slow.
            (name, "password") => ["nobody", NONSENSE, "Ines", "Carl", "Rita", "Nora"].contains(&name),
            (SESSION_ALONE, _) => row.is_api(),
            (BEARER_ALONE, _) => !row.path.starts_with("/api/"),
            _ => true,
        }
    }

    fn with_bearer(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.bearer {
            Some(bearer) => request.bearer_auth(bearer),
            // One of a page that has come to the wrong door.
            None => self.cookie.iter().fold(request, |request, cookie| {
                request.header("cookie", format!("umemployed_portal={cookie}")).header("accept", "application/json")
            }),
        }
    }

    fn with_cookie(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.header("accept", "text/html,application/xhtml+xml");
        match &self.cookie {
            Some(cookie) => request.header("cookie", format!("umemployed_portal={cookie}")),
            None => self.bearer.iter().fold(request, |request, bearer| request.bearer_auth(bearer)),
        }
    }
}

/// The callers of the first columns: nobody, also with the other door's credentials; bad credentials; a mailed link.
fn strangers(app: &TestApp, people: &[Caller], link: &str) -> Vec<Caller> {
    let (now, rita) = (app.now().timestamp(), people.iter().find(|caller| caller.user == RITA).unwrap());
    let claims = |kind: &str, exp| {
        token(&json!({"token_type": kind, "exp": exp, "iat": now, "jti": "0".repeat(32), "user_id": RITA}))
    };
    let stranger = |name: &str, column| Caller {
        name: name.to_owned(),
        column,
        form_token: rita.form_token.clone(),
        ..Caller::default()
    };
    let bad = |name, bearer: &str, cookie: &str| {
        let (bearer, cookie) = (Some(bearer.to_owned()), Some(cookie.to_owned()));
        Caller { bearer, cookie, email: rita.email, ..stranger(name, 1) }
    };
    vec![
        stranger("nobody", 0),
        bad(NONSENSE, "undefined", "undefined"),
        bad("who has a link's token", link, link),
        bad("who has what the other door takes", rita.cookie.as_ref().unwrap(), rita.bearer.as_ref().unwrap()),
        bad("who has what is over", &claims("access", now), "session-that-is-over"),
        bad("who has a refresh token", &claims("refresh", now + 60), &rita.form_token),
        Caller { by_link: true, user: CARL, ..stranger("Carl's link", 3) },
        Caller { cookie: rita.cookie.clone(), ..stranger(SESSION_ALONE, 0) },
        Caller { bearer: rita.bearer.clone(), ..stranger(BEARER_ALONE, 0) },
    ]
}

fn meeting_digest<'a>(meetings: &'a [Meeting], object: &str, own: &str) -> &'a str {
    let of = |id: &str| meetings.iter().find(|meeting| meeting.id.to_string() == id);
    of(object).or_else(|| of(own)).map_or("none", |meeting| &meeting.digest)
}

/// An answer in the table's words, when the expected one is such a word.
fn outcome(answer: &Answer, expected: &str) -> String {
    let (status, to) = (answer.status.as_u16(), answer.header("location").unwrap_or_default());
    let is_redirect = matches!(status, 302 | 303);
    let word = match expected {
        "login" if is_redirect && to.starts_with("/login/") => "login",
        "home" if is_redirect && ["/dashboard/", "/dashboard/jobseeker/"].contains(&to) => "home",
        "done" if status == 302 && to.ends_with("google_oauth=success") => "done",
        "lost" if status == 302 && to.contains("google_oauth=error") => "lost",
        _ => return status.to_string(),
    };
    word.to_owned()
}

/// What an answer says but for the id that was asked for and the request's own.
fn without(answer: &Answer, id: &str) -> (u16, Vec<(String, String)>, String) {
    // A short one stands in a query, or by chance.
    let hidden = |text: &str| match id.len() > 4 {
        true => text.replace(id, "<id>"),
        false => text.replacen(&format!("%3D{id}"), "%3D<id>", 1),
    };
    let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), hidden(value.to_str().unwrap())));
    let own = ["x-request-id", "date", "content-length"];
    let headers = headers.filter(|(name, _)| !own.contains(&name.as_str())).collect();
    (answer.status.as_u16(), headers, hidden(&answer.text))
}

#[test]
fn every_route_of_the_server_has_a_row() {
    let methods = |route: &interviews::http::routes::Route| {
        let own = route.methods.iter().filter(|method| !matches!(**method, Method::HEAD | Method::OPTIONS));
        own.map(|method| format!("{method} {}", route.template)).collect::<Vec<_>>()
    };
    let served: BTreeSet<String> = app::table_of_contents().iter().flat_map(methods).collect();
    let rows: BTreeSet<String> = Row::all().iter().map(|row| format!("{} {}", row.method, row.path)).collect();
    assert_eq!(rows, served);
}

/// Goes through rows of the table: first through all that changes nothing.
async fn check(is_asked: impl Fn(&Row) -> bool) {
    let matrix = Matrix::new().await;
    let rows: Vec<Row> = Row::all().into_iter().filter(is_asked).collect();
    let mut paths = BTreeSet::new();
    for row in &rows {
        matrix.check(row, false).await;
        if row.method == Method::POST && !row.path.starts_with("/api/") && row.path != "/login/" {
            matrix.check_forged(row).await;
        }
        let has_one_door = row.is_api() || !row.path.starts_with("/api/");
        if has_one_door && paths.insert(row.path.clone()) {
            matrix.check_other_methods(row).await;
        }
    }
    for row in &rows {
        matrix.check(row, true).await;
    }
    let read = matrix.read.borrow();
    let unread: Vec<_> = MARKS.iter().map(|mark| mark.0).filter(|mark| !read.contains(mark)).collect();
    assert_eq!(unread, ["markines"], "words that nobody is shown prove nothing");
    assert!(matrix.asked.get() > 1000, "{}", matrix.asked.get());
}

#[tokio::test]
async fn the_api_lets_everybody_in_where_the_table_says_so_and_nowhere_else() {
    check(Row::is_api).await;
}

#[tokio::test]
async fn pages_and_mailed_links_let_everybody_in_where_the_table_says_so_and_nowhere_else() {
    check(|row| !row.is_api()).await;
}
