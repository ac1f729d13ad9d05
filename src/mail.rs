//! Stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    GoogleConnected,
}
#[derive(Clone, Debug)]
pub struct NewMail {
    pub kind: Kind,
    pub interview_id: Option<i64>,
    pub user_id: i64,
    pub recipient: Option<String>,
    pub sequence: i32,
}
pub async fn enqueue(
    _: &mut sqlx::PgConnection,
    _: chrono::DateTime<chrono::Utc>,
    _: NewMail,
    _: std::time::Duration,
) -> anyhow::Result<uuid::Uuid> {
    Ok(crate::clock::random_uuid())
}
