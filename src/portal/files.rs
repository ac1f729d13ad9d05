//! The files that pages load: the stylesheet with the brand's colours, the scripts, the icon, the logo. Their addresses
//! change with their content, so browsers keep them for good. They lie below `/interviews/`, which a proxy sends here
//! in any case; `/static/` is often Django's.

use std::sync::LazyLock;

use askama::Template;
use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    colour::Colour,
    config::Settings,
    context::Context,
    http::{Error, Result, extract::QueryParams},
};

const STYLE: &str = include_str!("../../assets/style.css");
const APP: &str = include_str!("../../assets/app.js");
const ROOM: &str = include_str!("../../assets/room.js");
const LINK: &str = include_str!("../../assets/link.js");

/// Of what is the same for every brand.
static FILES: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let digest = [STYLE, APP, ROOM, LINK].into_iter().fold(Sha256::new(), |digest, file| digest.chain_update(file));
    digest.finalize().into()
});

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(file))
}

/// Where a page finds a file.
pub fn address(name: &str, settings: &Settings) -> String {
    format!("/interviews/static/{name}?v={}", version(settings))
}

/// Another one for other files, another brand, or another program.
fn version(settings: &Settings) -> String {
    let logo = settings.brand_logo.as_ref().map_or("", |logo| &logo.digest);
    let brand = [env!("CARGO_PKG_VERSION"), &settings.brand_name, &settings.brand_accent.to_string(), logo].join("\0");
    hex::encode(&Sha256::new().chain_update(*FILES).chain_update(brand).finalize()[..6])
}

/// A file that pages load. It is kept for good under the version that it has; an address with another one comes from a
/// page of another server, while versions overlap.
#[utoipa::path(get, path = "/interviews/static/{file}", tag = "pages", security(()), params(("file" = String, Path)),
    responses((status = 200, description = "The file", content_type = "text/css")))]
async fn file(
    State(ctx): State<Context>,
    name: std::result::Result<Path<String>, PathRejection>,
    query: QueryParams,
) -> Result<Response> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let Path(name) = name.map_err(|_| Error::NotFound)?;
    let (media_type, content) = match (name.as_str(), &ctx.settings.brand_logo) {
        ("style.css", _) => ("text/css; charset=utf-8", stylesheet(&ctx.settings).into_bytes()),
        ("app.js", _) => (SCRIPT, APP.into()),
        ("room.js", _) => (SCRIPT, ROOM.into()),
        ("link.js", _) => (SCRIPT, LINK.into()),
        ("icon.svg", _) => ("image/svg+xml", icon(&ctx.settings).into_bytes()),
        ("logo", Some(logo)) => (logo.media_type, logo.bytes.clone()),
        _ => return Err(Error::NotFound),
    };
    let is_its_own = query.get("v") == Some(&*version(&ctx.settings));
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, if is_its_own { "public, max-age=31536000, immutable" } else { "no-store" }),
        // A picture that somebody opens alone runs nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    ];
    Ok((headers, content).into_response())
}

/// The stylesheet with the brand's colours.
fn stylesheet(settings: &Settings) -> String {
    let accent = settings.brand_accent;
    let scheme = |ground: Colour| {
        let readable = accent.readable_on(ground);
        format!(":root{{--quiet-ground:{ground};--accent:{readable};--on-accent:{}}}", readable.text_on())
    };
    // What is readable on these is so on cards, too, which are farther from the ink.
    let (light, dark) = (scheme(Colour([0xee, 0xf1, 0xf7])), scheme(Colour([0x22, 0x29, 0x38])));
    format!("{light}@media(prefers-color-scheme:dark){{{dark}}}\n{STYLE}")
}

/// What stands for the portal among a browser's tabs: the brand's initial.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="{{ ground }}"/><text x="16" y="23" text-anchor="middle" font-family="sans-serif" font-size="20" font-weight="700" fill="{{ ground.text_on() }}">{{ initial }}</text></svg>"#
)]
struct Icon {
    ground: Colour,
    initial: String,
}

fn icon(settings: &Settings) -> String {
    let initial = settings.brand_name.chars().take(1).collect();
    // Writing into memory does not fail.
    Icon { ground: settings.brand_accent, initial }.render().unwrap_or_default()
}
