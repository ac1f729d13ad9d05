//! The OpenAPI document, as the code has it, and the pages that show it (contract §3.7); they load nothing from
//! elsewhere.
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

use crate::{
    auth,
    http::{
        Error, Result,
        extract::{PARSED, QueryParams},
    },
};

/// Where the document and its pages are; all answer GET, without credentials.
pub const PATHS: [&str; 5] = ["/openapi.json", "/swagger/", "/swagger/{file}", "/redoc/", "/redoc/{file}"];

/// What holds for the whole API.
const CONVENTIONS: &str = "\
Schedules interviews: on Google Meet, by phone or in person.

* **Credentials:** `Authorization: Bearer <access_token>`, as a sign-in gives it. Where none are needed, a bad header \
is still refused.
* **Bodies** are JSON or forms, whose values are strings; unknown fields are ignored, an empty body is `{}`.
* **Errors** of an endpoint have a sentence for people in `error`. Those that come before it have `detail` alone: 401, \
400 for a request without one `Host`, 404 for an unknown URL, 405, 406, 408, 413, 414, 415, 429, 431, 500, and 503 of \
a busy server.
* **Methods:** HEAD goes wherever GET does; OPTIONS describes a path; any other method gets 405, with `Allow`.
* **Slashes:** a GET without the final slash is redirected (301), other methods are served as if it were there.
* **Times:** dates are `YYYY-MM-DD`, an interview's time is its zone's wall time, timestamps are in UTC.
* Interviews are found under `/api/interviews/` and `/api/company/interviews/` alike.
";

/// The routes of [`PATHS`].
pub fn router(document: Value) -> Router {
    let document = Arc::new(document);
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
    Router::new()
        .route(json_path, get(as_json))
        .route(swagger, get(page.clone()))
        .route(redoc, get(page))
        .route(swagger_file, get(part.clone()))
        .route(redoc_file, get(part))
}

/// What Swagger UI does: its own scripts, styles that these make, pictures within its stylesheet, calls to this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page, out of the program itself.
fn file(name: &str, config: Arc<Config<'static>>) -> Result<Response> {
    let found = utoipa_swagger_ui::serve(name, config).map_err(|error| anyhow::anyhow!("{error}"))?;
    let file = found.ok_or(Error::NotFound)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::try_from(file.content_type)?);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((StatusCode::OK, headers, file.bytes.into_owned()).into_response())
}

/// The document of `/api`: what its handlers' annotations say, and what every endpoint answers alike.
pub fn document(annotated: &OpenApi) -> serde_json::Result<Value> {
    let mut document = serde_json::to_value(annotated)?;
    document["info"] = json!({"title": document["info"]["title"], "version": document["info"]["version"],
        "description": CONVENTIONS});
    document["servers"] = json!([{"url": "/", "description": "The server that this document comes from"}]);
    document["components"]["securitySchemes"]["bearer"] = json!({"type": "http", "scheme": "bearer",
        "bearerFormat": "JWT", "description": "The `access_token` of a sign-in"});
    document["components"]["securitySchemes"]["portal_session"] = json!({"type": "apiKey", "in": "cookie",
        "name": auth::SESSION_COOKIE, "description": "A browser that has signed in at `/login/`; navigations alone. \
        Where the server is reached by https, the name begins with `__Host-`"});
    let (text, list) = (json!({"type": "string"}), json!({"type": "array", "items": {"type": "object"}}));
    let schemas = &mut document["components"]["schemas"];
    schemas["Refusal"] = json!({"type": "object", "required": ["error"], "properties": {"error": text, "detail": text},
        "description": "Why an endpoint refuses; `error` is a sentence for people"});
    schemas["FrameworkError"] = json!({"type": "object", "required": ["detail"],
        "properties": {"detail": text, "code": text, "messages": list},
        "description": "Why a request did not get as far as an endpoint's rules; never has an `error`"});
    schemas["AnyError"] = json!({"anyOf": [schema("Refusal"), schema("FrameworkError")]});
    document["components"]["headers"] = json!({
        "Allow": header("The path's methods, such as `GET, HEAD, OPTIONS`"),
        "Cache-Control": header("Always `no-store`"),
        "X-Request-Id": header("As the request had it, or a new one; the server's log has it too"),
        "WWW-Authenticate": header("`Bearer realm=\"api\"`"),
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        // The door takes pages and probes from the annotations too; they are no part of the API.
        paths.retain(|path, _| path.starts_with("/api/"));
        for (path, item) in paths {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                // Two mount points share a handler; an id is for one operation.
                operation["operationId"] = operation_id(method, path).into();
                complete(path, operation);
            }
        }
    }
    Ok(document)
}

/// Adds the forms that a body may have, what the door and the framework answer, and the headers of every answer. An
/// error that is annotated without a body has the usual one of its status.
fn complete(path: &str, operation: &mut Value) {
    let (by_id, public) = (path.contains("id}"), operation["security"].is_array());
    let has_body = operation.get("requestBody").is_some();
    if has_body {
        let mut content = operation["requestBody"]["content"][PARSED[0]].clone();
        // `Option` in an annotation: the body may be missing; it may not be null.
        if let Some(described) = content.pointer("/schema/oneOf/0").cloned() {
            content["schema"] = described;
        }
        operation["requestBody"]["content"] = PARSED.iter().map(|form| (form.to_string(), content.clone())).collect();
    }
    let mut add = |applies: bool, status: &str, description: &str| {
        if applies && operation["responses"].get(status).is_none() {
            operation["responses"][status] = json!({ "description": description });
        }
    };
    add(true, "401", if public { "A bad Bearer header" } else { "No valid Bearer token" });
    add(true, "406", "The `Accept` header admits none of the answer's media types");
    add(true, "500", "A fault of the server");
    add(true, "503", "The database is busy or away");
    add(
        true,
        "400",
        if has_body {
            "The body cannot be parsed, or is not as described; or the request has not one `Host`"
        } else {
            "The request has not one `Host`"
        },
    );
    add(path.contains("{id}"), "403", "The caller may not do this");
    add(by_id, "404", "There is no such row, or the id is not a number");
    add(true, "414", "The URL is over 16 KiB");
    add(true, "431", "The headers are over 64 KiB");
    add(has_body, "408", "The body did not arrive in time");
    add(has_body, "413", if public { "The body is over 16 KiB" } else { "The body is over 1 MiB" });
    add(has_body, "415", "The body is of another media type, or compressed");
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let usual = schema(match status.as_str() {
            "401" | "406" | "408" | "413" | "414" | "415" | "429" | "431" | "500" => "FrameworkError",
            "400" => "AnyError",
            "404" if by_id => "AnyError",
            // With `detail` where the database is busy, which every endpoint may say.
            "503" => "AnyError",
            _ => "Refusal",
        });
        let own = response.pointer("/content/application~1json/schema").cloned();
        let error = match (status.as_str(), &own) {
            ("400", Some(own)) => Some(json!({"anyOf": [own, usual]})),
            ("401", Some(own)) => Some(json!({"anyOf": [own, usual]})),
            (status, None) if status >= "400" => Some(usual),
            _ => None,
        };
        if let Some(error) = error {
            response["content"][PARSED[0]]["schema"] = error;
        }
        // `Option` in an annotation: not always there.
        for header in response["headers"].as_object_mut().into_iter().flat_map(|headers| headers.values_mut()) {
            let kind = header["schema"]["type"].as_array().map(|kinds| kinds[0].clone());
            header["required"] = kind.is_none().into();
            if let Some(kind) = kind {
                header["schema"]["type"] = kind;
            }
        }
        let headers = &mut response["headers"];
        let shared = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
        headers["X-Request-Id"] = shared("X-Request-Id");
        headers["Cache-Control"] = shared("Cache-Control");
        // An id that is not a number is no URL, and has no methods.
        if !(by_id && status == "404") {
            headers["Allow"] = shared("Allow");
        }
        if status == "503" {
            headers["Retry-After"] = json!({"description": "Seconds, where a retry is worthwhile",
                "required": false, "schema": {"type": "integer"}});
        }
        if status == "401" {
            headers["WWW-Authenticate"] = match own {
                None => shared("WWW-Authenticate"),
                Some(_) => json!({"description": "Where the token is not valid", "schema": {"type": "string"}}),
            };
        }
    }
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A header that is always there.
fn header(description: &str) -> Value {
    json!({"description": description, "required": true, "schema": {"type": "string"}})
}

/// Such as `get_api_interviews_id_join`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}
