//! `kill -9` of a real server at each of the moments between intent and mails.
//!
//! A moment is reached by making what the server waits for then wait itself: Google, a table's lock, the SMTP server.
//! After the restart all three sides agree. The time that must pass (45 s until an intent is undone, 30 s until the
//! queue takes a mail over) is taken off the rows instead of being waited for.

use interviews::dev::{
    google::{Call, Fault, FaultKind},
    mailbox::{self, Step},
};
use serde_json::json;
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
        let killed = async {
            let reached = reached.await;
            drop(server);
            reached
        };
        let (answer, reached) = tokio::join!(self.schedule(), killed);
        assert_eq!(answer, None, "the server answered before it was killed");
        reached
    }

    async fn until_mails_hang(&self) {
        until(|| (self.mailbox.hanging() == 2).then_some(())).await
    }

    /// Nothing is left of the booking, the client is told nothing wrong, and the same request then works.
    async fn assert_undone(&self) {
        let _server = self.serve().await;
        self.let_a_minute_pass().await;
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
    let _server = world.serve().await;
    world.let_a_minute_pass().await;
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
    let _server = world.serve().await;
    world.let_a_minute_pass().await;
    world.assert_made(4).await;
}
