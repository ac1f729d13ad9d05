//! The OpenAPI document, as the code has it, and the pages that show it (contract §3.7); they load nothing from elsewhere.
//!
//! What every endpoint answers alike (contract §3.2, §4.3) is written into the document here, once.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::http::{Error, Result, extract::QueryParams};

/// Where the document and its pages are; all answer GET, without credentials.
pub const PATHS: [&str; 5] = ["/openapi.json", "/swagger/", "/swagger/{file}", "/redoc/", "/redoc/{file}"];

/// The routes of [`PATHS`].
pub fn router(document: &OpenApi) -> serde_json::Result<Router> {
    let document = Arc::new(complete(serde_json::to_value(document)?));
    let config = Arc::new(Config::from("/openapi.json"));
    let as_json = {
        let document = document.clone();
        move || async move { Json(&*document).into_response() }
    };
    let page = {
        let config = config.clone();
        move |query: QueryParams| async move {
            match query.get("format") {
                Some("openapi") => {
                    let mut response = Json(&*document).into_response();
                    let content_type = HeaderValue::from_static("application/openapi+json");
                    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                    Ok(response)
                }
                _ => file("index.html", config),
            }
        }
    };
    let part = move |Path(name): Path<String>| async move { file(&name, config) };
    let [json_path, swagger, swagger_file, redoc, redoc_file] = PATHS;
    Ok(Router::new()
        .route(json_path, get(as_json))
        .route(swagger, get(page.clone()))
        .route(redoc, get(page))
        .route(swagger_file, get(part.clone()))
        .route(redoc_file, get(part)))
}

/// A file of the page, out of the program itself.
fn file(name: &str, config: Arc<Config<'static>>) -> Result<Response> {
    let found = utoipa_swagger_ui::serve(name, config).map_err(|error| anyhow::anyhow!("{error}"))?;
    let file = found.ok_or(Error::NotFound)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(file.content_type)?);
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((StatusCode::OK, headers, file.bytes.into_owned()).into_response())
}

/// Adds the Bearer scheme and, to every operation, what the door and the framework answer.
fn complete(mut document: Value) -> Value {
    let text = json!({"type": "string"});
    let object = |key: &str, more: Value| {
        let mut properties = json!({ key: text });
        properties
            .as_object_mut()
            .into_iter()
            .for_each(|all| all.extend(more.as_object().cloned().unwrap_or_default()));
        json!({"type": "object", "properties": properties, "required": [key]})
    };
    let components = &mut document["components"];
    components["securitySchemes"]["bearer"] = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"});
    components["schemas"]["Refusal"] = object("error", json!({"detail": text}));
    components["schemas"]["FrameworkError"] = object("detail", json!({"code": text, "messages": {"type": "array"}}));
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths.filter(|(path, _)| path.starts_with("/api/")) {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            // Two mount points and two methods share a handler; an id is for one operation.
            operation["operationId"] = operation_id(method, path).into();
            let public = operation["security"].is_array();
            let mut add = |status: &str, schema: &str, description: &str| {
                if operation["responses"][status].is_null() {
                    let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
                    operation["responses"][status] =
                        json!({"description": description, "content": {"application/json": {"schema": schema}}});
                }
            };
            add("401", "FrameworkError", if public { "A bad Bearer header" } else { "No, or no valid, Bearer token" });
            add("406", "FrameworkError", "The Accept header admits no JSON");
            add("500", "FrameworkError", "A fault of the server");
            if path.contains("{id}") {
                add("403", "Refusal", "Not the caller's");
                add("404", "Refusal", "No such row");
            }
            if method == "post" {
                add("400", "Refusal", "The body is malformed or breaks a rule");
                add("413", "FrameworkError", "The body is over 1 MiB");
                add("415", "FrameworkError", "The body's media type is unknown");
            }
        }
    }
    document
}

/// Such as `get_api_interviews_id_join`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}
