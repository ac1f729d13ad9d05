//! The files that pages load: the stylesheet with the brand's colours, the scripts, the icon, the logo. Their addresses
//! change with their content, so browsers keep them for good. They lie below `/interviews/`, which a proxy sends here in
//! any case; `/static/` is often Django's.

use std::sync::LazyLock;

use askama::Template;
use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    colour::Colour,
    config::Settings,
    context::Context,
    http::{Error, Result},
};

const STYLE: &str = include_str!("../../assets/style.css");
const APP: &str = include_str!("../../assets/app.js");
const ROOM: &str = include_str!("../../assets/room.js");

/// Of what is the same for every brand.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let digest = [STYLE, APP, ROOM].into_iter().fold(Sha256::new(), |digest, file| digest.chain_update(file));
    hex::encode(&digest.finalize()[..6])
});

pub fn routes() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(file))
}

/// Where a page finds a file.
pub fn address(name: &str, settings: &Settings) -> String {
    let version = match (name, &settings.brand_logo) {
        ("logo", Some(logo)) => logo.digest.clone(),
        ("icon.svg", _) => hex::encode(&Sha256::digest(icon(settings))[..6]),
        // Its digits, which need no escaping.
        ("style.css", _) => format!("{}{}", *VERSION, settings.brand_accent.to_string().trim_start_matches('#')),
        _ => VERSION.clone(),
    };
    format!("/interviews/static/{name}?v={version}")
}

/// A file that pages load.
#[utoipa::path(get, path = "/interviews/static/{file}", tag = "pages", security(()), params(("file" = String, Path)), responses(
    (status = 200, description = "The file", content_type = "text/css"),
    (status = 404, description = "There is none"),
))]
async fn file(State(ctx): State<Context>, Path(name): Path<String>) -> Result<Response> {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let (media_type, content) = match (name.as_str(), &ctx.settings.brand_logo) {
        ("style.css", _) => ("text/css; charset=utf-8", stylesheet(&ctx.settings).into_bytes()),
        ("app.js", _) => (SCRIPT, APP.into()),
        ("room.js", _) => (SCRIPT, ROOM.into()),
        ("icon.svg", _) => ("image/svg+xml", icon(&ctx.settings).into_bytes()),
        ("logo", Some(logo)) => (logo.media_type, logo.bytes.clone()),
        _ => return Err(Error::NotFound),
    };
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        // A picture that somebody opens alone runs nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    ];
    Ok((headers, content).into_response())
}

/// The stylesheet with the brand's colours.
fn stylesheet(settings: &Settings) -> String {
    let accent = settings.brand_accent;
    // The cards' grounds in `style.css`; `--quiet-ground` is nearer to the ink than they are.
    let scheme = |ground: &str| {
        let ground = ground.parse().unwrap_or(Colour::WHITE);
        let text = accent.readable_on(ground);
        format!(":root{{--accent:{text};--on-accent:{};--accent-text:{text}}}", text.text_on())
    };
    format!("{}@media(prefers-color-scheme:dark){{{}}}\n{STYLE}", scheme("#eef1f7"), scheme("#222938"))
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
