//! Instants by a reader's own clock. The page's script knows the reader's zone, and this server the time rules:
//! browsers may have old ones, and an hour off is worse than nothing.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    context::Context,
    http::{Error, Result, extract::QueryParams},
    zone::{self, Zone},
};

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(local_times))
}

/// `at` (seconds since 1970, separated by commas) in words by the clock of `zone`; null for what is no instant.
#[utoipa::path(get, path = "/interviews/local-times/", tag = "pages", security(()),
    params(("zone" = String, Query), ("at" = String, Query)),
    responses((status = 200, description = "The words"), (status = 400, description = "Not a zone")))]
async fn local_times(query: QueryParams) -> Result<Response> {
    let zone = query.get("zone").and_then(Zone::parse).ok_or(Error::bad_request("Invalid timezone."))?;
    let said = query.get("at").unwrap_or_default().split(',').map(|seconds| {
        let at = DateTime::from_timestamp(seconds.parse().ok()?, 0)?;
        (zone::FIRST..=zone::LAST).contains(&at).then(|| words(&zone, at))
    });
    Ok(Json(said.collect::<Vec<Option<String>>>()).into_response())
}

/// `Tue 1 Dec 2026, 09:00`
pub fn words(zone: &Zone, at: DateTime<Utc>) -> String {
    zone.local(at).format("%a %-d %b %Y, %H:%M").to_string()
}
