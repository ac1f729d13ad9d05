//! The least that a server of axum and sqlx does for a request: the two statements of check-connection, and an answer
//! of its size. No tokens, rules, limits, logs or metrics; what it reaches is what these libraries leave for the rest.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, http::StatusCode};
use interviews::{config::PoolLimits, db};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::net::TcpListener;

use super::{data::Scale, queries};

/// Serves every path on the port `PORT` until it is killed.
pub async fn serve(url: &str, scale: Scale) -> anyhow::Result<()> {
    // As shipped.
    let limits = PoolLimits { connections: 10, acquire: Duration::from_secs(5), statement: Duration::from_secs(30) };
    let db = db::connect(url, limits).await?;
    let statements = [queries::caller()?, queries::grant()?];
    let (people, asked) = (scale.online(true), AtomicI64::new(0));
    let answer = Arc::new(async move || {
        let user = people.first + asked.fetch_add(1, Ordering::Relaxed) % people.count * people.step;
        for statement in &statements {
            let found = sqlx::query(AssertSqlSafe(statement.as_str())).bind(user).fetch_optional(&db).await;
            found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        }
        Ok::<_, StatusCode>(Json(
            json!({"connected": true, "email": "somebody@mail.example", "needs_reconnect": false}),
        ))
    });
    let router = Router::new().fallback(move || {
        let answer = answer.clone();
        async move { answer().await }
    });
    #[allow(clippy::disallowed_methods, reason = "told as the server is")]
    let port = std::env::var("PORT")?.parse()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(axum::serve(listener, router).await?)
}
