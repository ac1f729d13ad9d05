//! `kill -9` of a real server at each of the moments between intent and mails, of a booking, a change, a cancellation.
//!
//! A moment is reached by making what the server waits for then wait itself: Google, a table's lock, the SMTP server.
//! After the restart all three sides agree. The time that must pass (45 s until an intent is undone, 30 s until the
//! queue takes a mail over) is taken off the rows instead of being waited for.

use interviews::dev::{
    google::{Call, Fault, FaultKind},
    mailbox::{self, Step},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    process::{Server, World},
    *,
};

impl World {
    fn hold(&self, on: Call, kind: FaultKind) {
        self.google.order(Fault { on, times: 1, kind });
    }

    /// Schedules, kills the server once `reached` says so, and checks that the client got no answer.
    async fn kill_when<T>(&self, server: Server, reached: impl Future<Output = T>) -> T {
        self.kill_during(self.schedule(), server, reached).await
    }

    async fn kill_during<T>(
        &self,
        call: impl Future<Output = Option<(StatusCode, Value)>>,
        server: Server,
        reached: impl Future<Output = T>,
    ) -> T {
        let killed = async {
            let reached = reached.await;
            drop(server);
            reached
        };
        let (answer, reached) = tokio::join!(call, killed);
        assert_eq!(answer, None, "the server answered before it was killed");
        reached
    }

    async fn until_mails_hang(&self) {
        until(|| (self.mailbox.hanging() == 2).then_some(())).await
    }

    /// Nothing is left of the booking, the client is told nothing wrong, and the same request then works.
    async fn assert_undone(&self) {
        self.let_a_minute_pass().await;
        let _server = self.serve().await;
        until_async(async || {
            self.count("ivs_intent WHERE event_id IS NULL OR undo_from IS NULL").await == 0 && self.live_events() == 0
        })
        .await;
        assert_eq!(self.count("company_interview").await, 3);
        assert_eq!(self.count("notifications_notification").await, 0);
        assert!(self.mailbox.mails().is_empty());
        let (status, answer) = self.schedule().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        self.assert_made(2).await;
    }

    /// One interview, one event, one notification, one pair of mails; `mails` counts copies too.
    async fn assert_made(&self, mails: usize) {
        until(|| (self.mailbox.mails().len() >= mails).then_some(())).await;
        assert_eq!(self.count("company_interview").await, 4);
        assert_eq!(self.live_events(), 1);
        assert_eq!(self.count("notifications_notification").await, 1);
        let received = self.mailbox.mails();
        assert_eq!(received.len(), mails);
        let mut ids: Vec<String> = received.iter().map(|mail| mail.header("Message-ID").unwrap()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 2, "copies have one Message-ID");
        until_async(async || self.count("ivs_mail WHERE state = 'sent' AND kind = 'scheduled'").await == 2).await;
    }
}

/// Who waits for a lock in this database.
const WAITING: &str = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test]
async fn killed_while_google_has_not_made_the_event_yet() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.hold(Call::Insert, FaultKind::Hang);
    world.kill_when(server, world.until_called(Call::Insert, 1)).await;
    world.assert_undone().await;
}

#[tokio::test]
async fn killed_after_the_event_was_made_and_the_answer_was_lost() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.hold(Call::Insert, FaultKind::AnswerLost);
    world.hold(Call::Insert, FaultKind::Hang);
    world.kill_when(server, world.until_called(Call::Insert, 2)).await;
    assert_eq!(world.live_events(), 1);
    world.assert_undone().await;
}

#[tokio::test]
async fn killed_while_the_meet_link_is_pending() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.hold(Call::Get, FaultKind::Hang);
    world.kill_when(server, world.until_called(Call::Get, 1)).await;
    assert_eq!(world.live_events(), 1);
    world.assert_undone().await;
}

#[tokio::test]
async fn killed_between_googles_answer_and_the_commit() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    let mut blocker = PgConnection::connect(&world.database.url).await.unwrap();
    let mut tx = blocker.begin().await.unwrap();
    sqlx::query("LOCK TABLE notifications_notification").execute(&mut *tx).await.unwrap();
    let waiting = until_async(async || world.count(WAITING).await > 0);
    world.kill_when(server, waiting).await;
    tx.rollback().await.unwrap();
    assert_eq!(world.live_events(), 1);
    world.assert_undone().await;
}

#[tokio::test]
async fn killed_after_the_commit_before_any_mail() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.mailbox.order(Step::Sender, mailbox::Fault::Hang, 2);
    world.kill_when(server, world.until_mails_hang()).await;
    assert_eq!(world.count("company_interview").await, 4);
    world.mailbox.release();
    world.let_a_minute_pass().await;
    let _server = world.serve().await;
    world.assert_made(2).await;
    let (status, answer) = world.schedule().await.unwrap();
    assert_eq!((status.as_u16(), &answer["emails_sent"]), (200, &json!({"candidate": true, "recruiter": true})));
    world.assert_made(2).await;
}

#[tokio::test]
async fn killed_between_the_smtp_servers_acceptance_and_our_note_of_it() {
    let world = World::new().await;
    let server = world.serve().await;
    world.connect().await;
    world.mailbox.order(Step::Sender, mailbox::Fault::Hang, 2);
    let mut blocker = PgConnection::connect(&world.database.url).await.unwrap();
    let reached = async {
        world.until_mails_hang().await;
        // The notes touch the interview too: they have to wait.
        let mut tx = blocker.begin().await.unwrap();
        sqlx::query("SELECT FROM company_interview FOR UPDATE").execute(&mut *tx).await.unwrap();
        world.mailbox.release();
        until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
        until_async(async || world.count(WAITING).await == 2).await;
        tx
    };
    let tx = world.kill_when(server, reached).await;
    // What the dead server asked for must not happen after all when the row is free again.
    sqlx::raw_sql(
        "SELECT CASE WHEN datname = current_database() AND wait_event_type = 'Lock' THEN pg_terminate_backend(pid) END
         FROM pg_stat_activity",
    )
    .execute(&world.database.pool)
    .await
    .unwrap();
    until_async(async || world.count(WAITING).await == 0).await;
    tx.rollback().await.unwrap();
    world.let_a_minute_pass().await;
    let _server = world.serve().await;
    world.assert_made(4).await;
}

impl World {
    /// A server, and Rita's interview on it: 14:00 in New York, which is 19:00 UTC.
    async fn scheduled(&self) -> (Server, i64) {
        let server = self.serve().await;
        self.connect().await;
        let (_, answer) = self.schedule().await.unwrap();
        until(|| (self.mailbox.mails().len() == 2).then_some(())).await;
        self.mailbox.clear();
        (server, answer["interview_id"].as_i64().unwrap())
    }

    async fn change(&self, id: i64, body: Value) -> Option<(StatusCode, Value)> {
        self.call(Method::PATCH, &format!("/api/company/interviews/{id}/"), Some(body)).await
    }

    async fn cancel(&self, id: i64) -> Option<(StatusCode, Value)> {
        self.call(Method::DELETE, &format!("/api/company/interviews/{id}/"), None).await
    }

    async fn row(&self, id: i64) -> Value {
        sqlx::query_scalar("SELECT to_jsonb(i) FROM company_interview i WHERE id = $1")
            .bind(id)
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }

    /// Whether the row's event, and no other, is there and says what the row says.
    async fn agree(&self, id: i64) -> bool {
        let row = self.row(id).await;
        let live: Vec<_> = self.google.events().into_iter().filter(|event| event["status"] != "cancelled").collect();
        if !row["cancelled_at"].is_null() || row["google_event_id"].is_null() {
            return live.is_empty();
        }
        let instant = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        live.len() == 1
            && live[0]["id"] == row["google_event_id"]
            && live[0]["hangoutLink"] == row["meeting_link"]
            && instant(&live[0]["start"]["dateTime"]) == instant(&row["starts_at"])
    }

    /// A restart: the change has not happened and nobody was told of it, row and event agree, and it can be made.
    async fn assert_unchanged(&self, id: i64, change: Value) {
        self.let_a_minute_pass().await;
        let _server = self.serve().await;
        until_async(async || self.agree(id).await && self.count("ivs_change WHERE holder IS NOT NULL").await == 0)
            .await;
        let row = self.row(id).await;
        assert_eq!((&row["time"], &row["ical_sequence"]), (&json!("14:00:00"), &json!(0)));
        assert!(self.mailbox.mails().is_empty());
        assert_eq!(self.count("notifications_notification").await, 1);
        let (status, answer) = self.change(id, change).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        assert!(self.agree(id).await, "{} {:?}", self.row(id).await, self.google.events());
        assert_eq!(self.row(id).await["ical_sequence"], 1);
        until(|| (self.mailbox.mails().len() == 2).then_some(())).await;
    }

    /// Kills the server while this request of ours waits to commit.
    async fn kill_before_commit(&self, server: Server, call: impl Future<Output = Option<(StatusCode, Value)>>) {
        let mut blocker = PgConnection::connect(&self.database.url).await.unwrap();
        let mut tx = blocker.begin().await.unwrap();
        sqlx::query("LOCK TABLE notifications_notification").execute(&mut *tx).await.unwrap();
        self.kill_during(call, server, until_async(async || self.count(WAITING).await > 0)).await;
        tx.rollback().await.unwrap();
        until_async(async || self.count(WAITING).await == 0).await;
    }
}

#[tokio::test]
async fn killed_while_google_has_not_changed_the_event_yet() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    let change = json!({"time": "15:00"});
    world.hold(Call::Patch, FaultKind::Hang);
    world.kill_during(world.change(id, change.clone()), server, world.until_called(Call::Patch, 1)).await;
    world.assert_unchanged(id, change).await;
}

#[tokio::test]
async fn killed_after_the_event_was_changed_and_the_answer_was_lost() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    let change = json!({"time": "15:00"});
    world.hold(Call::Patch, FaultKind::AnswerLost);
    world.hold(Call::Patch, FaultKind::Hang);
    world.kill_during(world.change(id, change.clone()), server, world.until_called(Call::Patch, 2)).await;
    assert!(!world.agree(id).await);
    world.assert_unchanged(id, change).await;
}

#[tokio::test]
async fn killed_between_googles_changed_event_and_the_commit() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    let change = json!({"time": "15:00", "duration_minutes": 30});
    world.kill_before_commit(server, world.change(id, change.clone())).await;
    assert!(!world.agree(id).await);
    world.assert_unchanged(id, change).await;
}

#[tokio::test]
async fn killed_between_the_first_event_of_a_phone_interview_and_the_commit() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    let (_, by_phone) = world.change(id, json!({"interview_type": "phone"})).await.unwrap();
    assert_eq!(by_phone["event_id"], Value::Null);
    sqlx::query("UPDATE company_interview SET ical_sequence = 0").execute(&world.database.pool).await.unwrap();
    sqlx::query("DELETE FROM notifications_notification WHERE message LIKE '%changed%'")
        .execute(&world.database.pool)
        .await
        .unwrap();
    world.mailbox.clear();
    let change = json!({"interview_type": "google_meet"});
    world.kill_before_commit(server, world.change(id, change.clone())).await;
    assert_eq!(world.live_events(), 1);
    world.assert_unchanged(id, change).await;
}

#[tokio::test]
async fn killed_between_the_deletion_of_an_event_and_the_commit() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    let old_link = world.row(id).await["meeting_link"].clone();
    world.kill_before_commit(server, world.change(id, json!({"interview_type": "phone"}))).await;
    assert_eq!(world.live_events(), 0);
    world.let_a_minute_pass().await;
    let _server = world.serve().await;
    // The interview still is what it was; its event had to be made anew, which both have to know.
    until_async(async || world.agree(id).await).await;
    let row = world.row(id).await;
    assert_eq!((&row["interview_type"], &row["ical_sequence"]), (&json!("google_meet"), &json!(1)));
    assert_ne!(row["meeting_link"], old_link);
    until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
    for mail in world.mailbox.mails() {
        assert_eq!(mail.subject(), "Interview Updated: Software Engineer");
        assert!(mail.text().contains(row["meeting_link"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn killed_between_a_cancellation_and_the_deletion_of_its_event() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    world.hold(Call::Delete, FaultKind::Hang);
    world.mailbox.order(Step::Sender, mailbox::Fault::Hang, 2);
    let reached = async {
        world.until_called(Call::Delete, 1).await;
        world.until_mails_hang().await;
    };
    world.kill_during(world.cancel(id), server, reached).await;
    world.mailbox.release();
    assert_ne!(world.row(id).await["cancelled_at"], Value::Null);
    assert_eq!(world.live_events(), 1);
    world.let_a_minute_pass().await;
    let _server = world.serve().await;
    until_async(async || world.agree(id).await).await;
    until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
    for mail in world.mailbox.mails() {
        assert_eq!(mail.calendar().unwrap().method.as_deref(), Some("CANCEL"));
    }
    let (status, answer) = world.cancel(id).await.unwrap();
    assert_eq!((status.as_u16(), &answer["message"]), (200, &json!("Interview was already cancelled.")));
}

#[tokio::test]
async fn killed_before_a_cancellation_commits() {
    let world = World::new().await;
    let (server, id) = world.scheduled().await;
    world.kill_before_commit(server, world.cancel(id)).await;
    world.let_a_minute_pass().await;
    let _server = world.serve().await;
    assert!(world.agree(id).await && world.live_events() == 1);
    let (status, answer) = world.cancel(id).await.unwrap();
    assert_eq!((status.as_u16(), &answer["message"]), (200, &json!("Interview cancelled successfully.")));
    until(|| (world.mailbox.mails().len() == 2).then_some(())).await;
    assert!(world.agree(id).await);
}
