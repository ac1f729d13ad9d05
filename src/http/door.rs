//! What stands around every route: one request goes through [`enter`], the caller's credentials, the question whether
//! the URL has its method, and only then reaches its handler, in the order of contract §3.1.
//!
//! Hides CORS, slashes, `Accept`, `Allow`, the headers of every answer, panics, the limits of time and size, and the
//! request's log line and count. Promises that every answer, a refusal or a crash included, has the headers of §3.5 and
//! §3.6, and that neither log nor metrics hold a URL, only the template of its route.
//!
//! The table of routes is taken from the OpenAPI document, which `utoipa_axum` collects together with the router, so
//! the two know the same URLs. Credentials are checked by a feature above this module, hence passed to [`door`].
//!
//! All of it is one handler around the router: each layer of axum's costs a request clones and boxes.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, uri::PathAndQuery},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use serde_json::json;
use tower::ServiceExt;
use tracing::Instrument;

use super::{
    Error, Result,
    extract::{self, BODY_LIMIT, BodyLimits, SMALL_BODY},
    routes::{HTML, JSON, Route, Routes, Slash, is_api},
};
use crate::{clock::random_uuid, config::Origin, context::Context, metrics::Metrics};

/// The longest path and query, in bytes.
const LONGEST_URI: usize = 16 << 10;
/// The most bytes of all headers' names and values together.
const LARGEST_HEADERS: usize = 64 << 10;

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == JSON)
}

/// Whether a browser goes somewhere with this request, by a link or by sending a form, and shows what comes back.
pub fn is_navigation(headers: &HeaderMap) -> bool {
    let says =
        |name, text| headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(text)));
    let is_mode = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    is_mode || says(header::ACCEPT, HTML)
}

/// What [`enter`] works with.
struct Door {
    handlers: Router,
    routes: Routes,
    authenticate: Authenticate,
    allowed_origins: Vec<Origin>,
    /// What other origins' requests may carry: the header as it is sent.
    allowed_headers: HeaderValue,
    /// How long a handler may take.
    patience: Duration,
    /// How long a body may take to arrive.
    client_patience: Duration,
    metrics: Metrics,
    /// An error as a page.
    error_page: ErrorPage,
}

/// Lets a request to a route in, with its caller among the extensions, or answers in its place.
pub type Authenticate =
    Arc<dyn Fn(Arc<Route>, Request) -> Pin<Box<dyn Future<Output = Result<Request, Response>> + Send>> + Send + Sync>;

/// Makes the page of an error that a browser meets outside `/api`.
pub type ErrorPage = Arc<dyn Fn(&Method, StatusCode) -> Response + Send + Sync>;

/// Wraps `handlers`, which has the templates of `routes`, into everything of contract §3.
///
/// `error_page` is what people see of an error; clients get JSON. `authenticate` stands between the look-up of the URL
/// and of the method.
pub fn door(
    handlers: Router,
    routes: Routes,
    ctx: &Context,
    error_page: ErrorPage,
    authenticate: Authenticate,
) -> Router {
    Door {
        handlers,
        routes,
        authenticate,
        allowed_origins: ctx.settings.allowed_origins.clone(),
        allowed_headers: ctx.settings.allowed_headers.clone(),
        patience: ctx.settings.request_patience,
        client_patience: ctx.settings.client_patience,
        metrics: ctx.metrics.clone(),
        error_page,
    }
    .into_router()
}

/// What is around every answer: request id, span, log line, count, headers, CORS, the page of an error.
async fn enter(State(door): State<Arc<Door>>, request: Request) -> Response {
    let arrival = Instant::now();
    let found = door.routes.find(request.uri().path()).map(|(route, slash)| (route.clone(), slash));
    let id = request_id(request.headers());
    let method = bounded(request.method());
    let route = found.as_ref().map(|(route, _)| route.clone());
    let template = route.as_ref().map_or("unmatched", |route| route.template.as_str());
    // At level error, so that a filter that keeps any of a request's events keeps its id too.
    let span = tracing::error_span!("request", id, method, route = template);
    async {
        let origin = door.allowed_origin(request.headers());
        let preflight = is_preflight(&request);
        let under_api = is_api(request.uri().path());
        // Probes have no pages, so their errors are none either.
        let is_page = found.as_ref().is_none_or(|(route, _)| route.renders.iter().any(|kind| kind == HTML));
        let shows_pages = !under_api && is_page && is_navigation(request.headers());
        let asked = request.method().clone();
        let mut response = match preflight {
            _ if !names_its_host(&request) => Error::HostNotNamed.into_response(),
            true => StatusCode::OK.into_response(),
            false => door.admit(request, found).await.into_response(),
        };
        if shows_pages {
            response = door.with_error_page(&asked, response);
        }
        let headers = response.headers_mut();
        // No other site's script reads a page, which has its visitor's form tokens.
        put_cors(headers, origin.filter(|_| !is_html(headers)), preflight.then_some(&door.allowed_headers));
        put_common(headers, &id, under_api);
        let (status, took) = (response.status(), arrival.elapsed());
        door.metrics.request(method, template, status, took);
        tracing::info!(status = status.as_u16(), milliseconds = took.as_millis() as u64, "answered");
        response
    }
    .instrument(span)
    .await
}

impl Door {
    fn into_router(self) -> Router {
        Router::new().fallback(enter).with_state(Arc::new(self))
    }

    /// Limits of size, URLs that do not exist, slashes, `Accept`, panics and the time limit.
    async fn admit(&self, mut request: Request, found: Option<(Arc<Route>, Slash)>) -> Result<Response> {
        if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > LONGEST_URI) {
            return Err(Error::UriTooLong);
        }
        if size_of(request.headers()) > LARGEST_HEADERS {
            return Err(Error::HeadersTooLarge);
        }
        let (route, slash) = found.ok_or(Error::NotFound)?;
        if slash == Slash::Missing {
            let slashed = with_slash(request.uri())?;
            if matches!(*request.method(), Method::GET | Method::HEAD) {
                return redirect(&slashed, &route);
            }
            *request.uri_mut() = Uri::from(slashed);
        }
        let mut response = match route.is_api() && !route.satisfies(request.headers()) {
            true => Error::NotAcceptable.into_response(),
            false => self.handle_in_time(route.clone(), request).await,
        };
        if route.is_api() || response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, route.allow());
        }
        Ok(response)
    }

    /// [`handle`](Self::handle), within the limits of time and whatever panics.
    async fn handle_in_time(&self, route: Arc<Route>, mut request: Request) -> Response {
        let by = Some(tokio::time::Instant::now() + self.client_patience);
        let most = if route.credentials { BODY_LIMIT } else { SMALL_BODY };
        request.extensions_mut().insert(BodyLimits { by, most });
        let handled = AssertUnwindSafe(self.handle(route, request)).catch_unwind();
        match tokio::time::timeout(self.patience, handled).await {
            Ok(Ok(response)) => response,
            // Its own text went to the panic hook, see `telemetry`.
            Ok(Err(_)) => Error::Internal(anyhow!("a handler panicked")).into_response(),
            Err(_) => Error::Internal(anyhow!("no answer within {:?}", self.patience)).into_response(),
        }
    }

    /// The inner rooms: the caller's credentials, a method that the URL does not have, plain OPTIONS, and the handlers.
    async fn handle(&self, route: Arc<Route>, request: Request) -> Response {
        let request = match (self.authenticate)(route.clone(), request).await {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match request.method() {
            &Method::OPTIONS => Json(json!({
                "name": route.name,
                "description": route.description,
                "renders": route.renders,
                "parses": extract::PARSED,
            }))
            .into_response(),
            method if !route.methods.contains(method) => Error::MethodNotAllowed(method.clone()).into_response(),
            _ => self.handlers.clone().oneshot(request).await.into_response(),
        }
    }

    /// The page of an error in place of its JSON; other answers as they are.
    fn with_error_page(&self, method: &Method, mut response: Response) -> Response {
        let status = response.status();
        if !(status.is_client_error() || status.is_server_error()) || !is_json(&response) {
            return response;
        }
        let mut page = (self.error_page)(method, status);
        for name in [header::ALLOW, header::RETRY_AFTER] {
            page.headers_mut().extend(response.headers_mut().remove(&name).map(|value| (name, value)));
        }
        page
    }

    /// The request's `Origin`, if browsers may call from there.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.allowed_origins.iter().any(|allowed| allowed.admits(origin.as_bytes())).then(|| origin.clone())
    }
}

/// Whether there is one `Host`, which HTTP/1.1 demands (RFC 9112, §3.2): with two, proxies and we might mean different
/// ones.
fn names_its_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// In bytes, of all names and values.
fn size_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// A method's name for logs and metrics: clients may invent others without end.
fn bounded(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}

/// To the URL with its final slash.
fn redirect(slashed: &PathAndQuery, route: &Route) -> Result<Response> {
    let location = HeaderValue::from_bytes(slashed.as_str().as_bytes())?;
    let mut redirect = (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response();
    if !route.is_api() {
        // The query may hold a mailed link's token: it goes along, and nowhere else.
        let headers = redirect.headers_mut();
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(redirect)
}

/// Path and query with the final slash added; relative, whatever form the request's target had. One that becomes too
/// long by it does not exist.
fn with_slash(uri: &Uri) -> Result<PathAndQuery> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    PathAndQuery::from_maybe_shared(format!("{}/{query}", uri.path())).map_err(|_| Error::NotFound)
}

/// The proxy's id of the request if it is harmless in logs, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(harmless);
    sent.map_or_else(|| random_uuid().to_string(), str::to_owned)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn is_preflight(request: &Request) -> bool {
    let headers = request.headers();
    *request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Contract §3.6; nothing for a foreign origin. A preflight is told which headers are allowed.
fn put_cors(headers: &mut HeaderMap, origin: Option<HeaderValue>, preflight: Option<&HeaderValue>) {
    let Some(origin) = origin else { return };
    let mut put = |name, value| _ = headers.insert(name, value);
    put(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    put(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if let Some(allowed) = preflight {
        put(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        let methods = "DELETE, GET, OPTIONS, PATCH, POST, PUT";
        put(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        put(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    } else {
        let exposed = "Idempotency-Replayed, Link, Retry-After, X-Request-Id";
        put(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
}

fn is_html(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(HTML.as_bytes()))
}

/// Contract §3.5. A handler's own `Referrer-Policy` and `Cache-Control` stand.
fn put_common(headers: &mut HeaderMap, id: &str, under_api: bool) {
    let opener = if is_html(headers) { "same-origin-allow-popups" } else { "same-origin" };
    headers.extend(HeaderValue::from_str(id).map(|id| (REQUEST_ID, id)));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), opener),
        (header::VARY, "Accept, Cookie, origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    if under_api || is_html(headers) {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use axum::{
        body::Body,
        extract::MatchedPath,
        middleware,
        response::{Html, Redirect},
    };
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use utoipa::openapi::{OpenApi, security::SecurityRequirement};
    use utoipa_axum::{router::OpenApiRouter, routes};

    use super::*;
    use crate::{
        config::{LogFormat, Settings},
        http::extract::{IdempotencyKey, PathId, QueryParams, RequestBody},
        telemetry::{self, tests::Lines},
    };

    const SPA: &str = "http://localhost:3000";
    const LONG: Duration = Duration::from_secs(60);
    const LIST: &str = "/api/company/interviews/";

    #[utoipa::path(get, path = "/", summary = "All interviews", responses((status = 200, content_type = "application/json")))]
    async fn list(query: QueryParams) -> Json<Value> {
        Json(json!({ "role": query.get("role") }))
    }

    #[utoipa::path(get, path = "/{id}/", params(("id" = u64, Path)), responses((status = 200)))]
    async fn show(id: PathId) -> Json<Value> {
        Json(json!({ "id": id.0 }))
    }

    #[utoipa::path(delete, path = "/{id}/", params(("id" = u64, Path)), responses((status = 200)))]
    async fn cancel(PathId(id): PathId, body: RequestBody) -> Result<Json<Value>> {
        if id == Some(999) {
            return Err(Error::missing("Interview not found", "No Interview matches the given query."));
        }
        Ok(Json(Value::Object(body.object().await?)))
    }

    #[utoipa::path(patch, path = "/{id}/", params(("id" = u64, Path)), responses((status = 200)))]
    async fn change(_: PathId, query: QueryParams, body: RequestBody) -> Result<Json<Value>> {
        Ok(Json(json!({ "role": query.get("role"), "body": body.object().await? })))
    }

    #[utoipa::path(get, path = "/{id}/calendar.ics", params(("id" = u64, Path)),
        responses((status = 200, content_type = "text/calendar; charset=utf-8", body = String)))]
    async fn calendar(_: PathId) -> Response {
        ([(header::CONTENT_TYPE, "text/calendar; charset=utf-8")], "BEGIN:VCALENDAR").into_response()
    }

    #[utoipa::path(get, path = "/analytics/", responses((status = 200)))]
    async fn analytics() -> &'static str {
        "{}"
    }

    #[utoipa::path(post, path = "/api/users/login/", security(()), responses((status = 200)))]
    async fn login(key: IdempotencyKey, body: RequestBody) -> Result<Json<Value>> {
        Ok(Json(json!({ "key": key.key()?, "body": body.value().await? })))
    }

    #[utoipa::path(method(get, post), path = "/api/company/google/connect/", responses((status = 302)))]
    async fn connect() -> Redirect {
        Redirect::to("http://accounts.test/")
    }

    #[utoipa::path(post, path = "/api/crash/", responses((status = 200)))]
    async fn crash(body: RequestBody) -> Result<()> {
        match body.object().await?.get("how").and_then(Value::as_str) {
            Some("panic") => panic!("sesame"),
            Some("hang") => std::future::pending().await,
            _ => Err(anyhow!("sesame").into()),
        }
    }

    #[utoipa::path(get, path = "/healthz", security(()), responses((status = 200)))]
    async fn healthz() -> &'static str {
        "ok"
    }

    async fn page(uri: Uri) -> Response {
        let own = [(header::REFERRER_POLICY, "no-referrer"), (header::CACHE_CONTROL, "private")];
        match uri.query() {
            Some(_) => (own, Html("<p>")).into_response(),
            None => Html("<p>").into_response(),
        }
    }

    /// Assembled as the product is: the interviews at two mount points, pages beside the document.
    fn product(patience: Duration) -> (Router, OpenApi) {
        let interviews = || {
            OpenApiRouter::new()
                .routes(routes!(list))
                .routes(routes!(analytics))
                .routes(routes!(show, change, cancel))
                .routes(routes!(calendar))
        };
        let mut document = OpenApi::default();
        document.security = Some(vec![SecurityRequirement::new("bearer", [""; 0])]);
        let (router, document) = OpenApiRouter::with_openapi(document)
            .nest("/api/company/interviews/", interviews())
            .nest("/api/interviews/", interviews())
            .routes(routes!(login))
            .routes(routes!(connect))
            .routes(routes!(crash))
            .routes(routes!(healthz))
            .split_for_parts();
        let router = router
            .route("/interviews/{id}/join/", axum::routing::get(page).post(page))
            .layer(middleware::map_response_with_state((), matched));
        let routes = Routes::from_openapi(&document).with("/interviews/{id}/join/", &[Method::GET, Method::POST]);
        let metrics = Metrics::new().unwrap();
        let settings = Settings::from_layers(|name| {
            let set =
                [("DATABASE_URL", "postgres:///x"), ("SECRET_KEY", "k"), ("CORS_ALLOWED_ORIGINS", "https://app.test")];
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        })
        .unwrap();
        let door = Door {
            handlers: router,
            routes,
            authenticate: Arc::new(|route, request| {
                Box::pin(async move { authenticate(&route, request).map_err(Error::into_response) })
            }),
            client_patience: patience,
            allowed_origins: settings.allowed_origins,
            allowed_headers: settings.allowed_headers,
            patience,
            metrics,
            error_page: Arc::new(|_, status| (status, Html("<p>")).into_response()),
        };
        (door.into_router(), document)
    }

    /// Says which template axum's own router has matched.
    async fn matched(path: Option<MatchedPath>, mut response: Response) -> Response {
        let path = path.map_or("none".into(), |path| path.as_str().to_owned());
        response.headers_mut().insert("x-matched", HeaderValue::from_str(&path).unwrap());
        response
    }

    /// In place of the product's own check of tokens.
    fn authenticate(route: &Route, request: Request) -> Result<Request> {
        match request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes) {
            Some(b"Bearer good") => Ok(request),
            None if !route.credentials => Ok(request),
            None => Err(Error::Unauthenticated(json!({"detail": "Authentication credentials were not provided."}))),
            Some(_) => Err(Error::Unauthenticated(json!({"detail": "bad"}))),
        }
    }

    static PRODUCT: LazyLock<Router> = LazyLock::new(|| product(Duration::from_millis(200)).0);

    struct Answer {
        status: u16,
        headers: HeaderMap,
        body: String,
    }

    impl Answer {
        fn header(&self, name: &str) -> &str {
            let mut values = self.headers.get_all(name).iter();
            let value = values.next().map_or("", |value| value.to_str().unwrap());
            assert!(values.next().is_none(), "{name} is there twice");
            value
        }

        fn json(&self) -> Value {
            assert_eq!(self.header("content-type"), "application/json");
            serde_json::from_str(&self.body).unwrap()
        }

        fn detail(&self) -> (u16, String) {
            let body = self.json();
            assert_eq!(body.as_object().unwrap().len(), 1, "a framework refusal has `detail` alone: {body}");
            (self.status, body["detail"].as_str().unwrap().to_owned())
        }
    }

    /// `"GET /path"`, headers as `"name: value"`.
    async fn send(line: &str, headers: &[&str], body: impl Into<Body>) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri).header(header::HOST, "x.test");
        for line in headers {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        deliver(request.body(body.into()).unwrap()).await
    }

    async fn deliver(request: Request) -> Answer {
        let response = PRODUCT.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    const ME: &str = "authorization: Bearer good";

    async fn mine(line: &str) -> Answer {
        send(line, &[ME], "").await
    }

    const NOT_FOUND: (u16, &str) = (404, "Not found.");
    const NOT_ACCEPTABLE: (u16, &str) = (406, "Could not satisfy the request Accept header.");

    fn told(refusal: (u16, &str)) -> (u16, String) {
        (refusal.0, refusal.1.to_owned())
    }

    // -- §3.1, §3.2: order and refusals

    #[tokio::test]
    async fn checks_come_in_the_order_url_accept_credentials_method_row_body() {
        let csv = "accept: text/csv";
        assert_eq!(send("FOO /nope/", &[csv, "authorization: x"], "").await.detail(), told(NOT_FOUND));
        assert_eq!(send("GET /api/company/interviews", &[csv], "").await.status, 301);
        assert_eq!(send("DELETE /api/company/interviews/", &[csv], "").await.detail(), told(NOT_ACCEPTABLE));
        assert_eq!(send("DELETE /api/company/interviews/", &[], "").await.status, 401);
        let wrong_method = mine("DELETE /api/company/interviews/").await;
        assert_eq!(wrong_method.detail(), told((405, "Method \"DELETE\" not allowed.")));
        let no_row = send("DELETE /api/interviews/999/", &[ME, "content-type: text/xml"], "x").await;
        assert_eq!((no_row.status, &no_row.json()["error"]), (404, &json!("Interview not found")));
        assert_eq!(send("DELETE /api/interviews/1/", &[ME, "content-type: text/xml"], "x").await.status, 415);
    }

    #[tokio::test]
    async fn a_public_path_asks_for_no_credentials_but_refuses_bad_ones() {
        assert_eq!(send("POST /api/users/login/", &[], "").await.status, 200);
        assert_eq!(send("GET /api/users/login/", &[], "").await.status, 405);
        let refused = send("POST /api/users/login/", &["authorization: Bearer undefined"], "").await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer realm=\"api\""));
    }

    #[tokio::test]
    async fn an_id_is_digits_or_the_url_does_not_exist() {
        for path in [
            "/api/interviews/abc/",
            "/api/interviews/1a/",
            "/api/interviews/-1/",
            "/api/interviews/%31/",
            "/api/interviews/٣/",
        ] {
            for method in ["GET", "POST"] {
                assert_eq!(mine(&format!("{method} {path}")).await.detail(), told(NOT_FOUND), "{path}");
            }
        }
        assert_eq!(mine("GET /interviews/x/join/").await.detail(), told(NOT_FOUND));
        assert_eq!(mine("GET /api/interviews/0501/").await.json(), json!({"id": 501}));
        assert_eq!(mine("GET /api/interviews/9223372036854775807/").await.json(), json!({"id": i64::MAX}));
        assert_eq!(mine("GET /api/interviews/9223372036854775808/").await.json(), json!({"id": null}));
        assert_eq!(mine(&format!("GET /api/interviews/{}/", "9".repeat(500))).await.json(), json!({"id": null}));
    }

    #[tokio::test]
    async fn urls_that_do_not_exist_are_told_in_json() {
        for path in
            ["/", "/nope", "/api", "/api/", "/api/token/", "/api/Company/interviews/", "/debug-settings/", "/healthz/"]
        {
            assert_eq!(mine(&format!("GET {path}")).await.detail(), told(NOT_FOUND), "{path}");
        }
        assert_eq!(mine("OPTIONS *").await.detail(), told(NOT_FOUND));
        assert_eq!(mine("CONNECT x.test:80").await.detail(), told(NOT_FOUND));
    }

    #[tokio::test]
    async fn literal_segments_win_over_ids() {
        assert_eq!(mine("GET /api/interviews/analytics/").await.header("x-matched"), "/api/interviews/analytics/");
    }

    #[tokio::test]
    async fn a_body_over_its_limit_is_refused_and_one_under_it_read() {
        let body = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8));
        let headers = ["content-type: application/json", ME];
        for (line, headers, most) in
            [("POST /api/users/login/", &headers[..1], 16 << 10), ("PATCH /api/interviews/7/", &headers[..], 1 << 20)]
        {
            assert_eq!(send(line, headers, body(most)).await.status, 200, "{line}");
            let refused = send(line, headers, body(most + 1)).await;
            assert_eq!(refused.detail(), told((413, "Request body too large.")), "{line}");
        }
    }

    #[tokio::test]
    async fn a_request_names_one_host_unless_it_is_of_http_1_0() {
        let of = async |version: Version, hosts: &[&'static str]| {
            let mut request = Request::builder().version(version).uri("http://x.test/healthz");
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            deliver(request.body(Body::empty()).unwrap()).await
        };
        for (version, hosts, status) in [
            (Version::HTTP_11, &["x.test"][..], 200),
            (Version::HTTP_11, &[""], 200),
            (Version::HTTP_10, &[], 200),
            (Version::HTTP_11, &[], 400),
            (Version::HTTP_11, &["x.test", "x.test"], 400),
            (Version::HTTP_10, &["x.test", "evil.test"], 400),
        ] {
            assert_eq!(of(version, hosts).await.status, status, "{version:?} {hosts:?}");
        }
        assert_eq!(of(Version::HTTP_11, &[]).await.detail(), told((400, "A request needs one Host header.")));
    }

    #[tokio::test]
    async fn over_a_real_connection_a_body_is_refused_before_the_rest_of_it_is_sent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, product(LONG).0).into_future());
        let head = "POST /api/users/login/ HTTP/1.1\r\nHost: x.test\r\nContent-Type: application/json\r\n";
        let chunk = "x".repeat((1 << 20) + 1);
        for request in [
            format!("{head}Content-Length: 2000000\r\n\r\n"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n200000\r\n{chunk}"),
        ] {
            let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
            connection.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let reading = connection.read_to_end(&mut answer);
            tokio::time::timeout(Duration::from_secs(10), reading).await.expect("an answer, then the end").unwrap();
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("x-request-id: "), "{answer}");
            assert!(answer.ends_with("{\"detail\":\"Request body too large.\"}"), "{answer}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_fault_a_panic_and_a_hanging_handler_are_told_alike_and_without_their_cause() {
        for how in ["fail", "panic", "hang"] {
            let body = json!({ "how": how }).to_string();
            let answer =
                send("POST /api/crash/", &[ME, "content-type: application/json", &format!("origin: {SPA}")], body)
                    .await;
            assert_eq!(answer.detail(), told((500, "Internal server error.")), "{how}");
            assert_eq!(answer.header("access-control-allow-origin"), SPA);
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_ne!(answer.header("x-request-id"), "");
        }
    }

    // -- §3.3: Accept

    #[tokio::test]
    async fn json_is_answered_when_accept_admits_it_or_html() {
        for (accept, status) in [("application/json", 200), ("text/html", 200), ("*/*", 200), ("image/*", 406)] {
            let answer = send(&format!("GET {LIST}"), &[ME, &format!("accept: {accept}")], "").await;
            assert_eq!((answer.status, answer.header("content-type")), (status, "application/json"), "{accept}");
        }
    }

    #[tokio::test]
    async fn a_calendar_also_satisfies_who_wants_calendars() {
        for (accept, status) in [("text/calendar", 200), ("application/json", 200), ("*/*", 200), ("text/csv", 406)] {
            let accept = format!("accept: {accept}");
            assert_eq!(send("GET /api/interviews/1/calendar.ics", &[ME, &accept], "").await.status, status, "{accept}");
        }
    }

    #[tokio::test]
    async fn pages_and_probes_are_answered_whatever_accept_says() {
        for path in ["/interviews/1/join/", "/healthz"] {
            assert_eq!(send(&format!("GET {path}"), &["accept: image/png"], "").await.status, 200);
        }
    }

    #[tokio::test]
    async fn head_works_wherever_get_does() {
        for path in [LIST, "/api/interviews/1/", "/api/interviews/1/calendar.ics", "/healthz", "/interviews/1/join/"] {
            let (head, get) = (mine(&format!("HEAD {path}")).await, mine(&format!("GET {path}")).await);
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
            for name in ["content-type", "allow", "cache-control", "vary"] {
                assert_eq!(head.header(name), get.header(name), "{path} {name}");
            }
        }
        assert_eq!(mine("HEAD /api/users/login/").await.status, 405);
    }

    // -- §3.4: slashes

    #[tokio::test]
    async fn get_and_head_without_the_final_slash_are_sent_to_the_path_with_it() {
        for (path, location) in [
            ("/api/company/interviews", "/api/company/interviews/"),
            ("/api/company/interviews?role=candidate&x=%2F%3F", "/api/company/interviews/?role=candidate&x=%2F%3F"),
            ("/api/interviews/7?", "/api/interviews/7/?"),
            ("/interviews/7/join?token=t", "/interviews/7/join/?token=t"),
            ("http://evil.test/api/interviews?a", "/api/interviews/?a"),
            ("/api/users/login", "/api/users/login/"),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = send(&format!("{method} {path}"), &[], "").await;
                assert_eq!((answer.status, answer.header("location")), (301, location));
                assert_eq!(answer.header("x-frame-options"), "DENY");
            }
        }
    }

    #[tokio::test]
    async fn other_methods_without_the_final_slash_are_served_as_if_it_were_there() {
        let json = "content-type: application/json";
        let answer = send("PATCH /api/interviews/7?role=x%26", &[ME, json], "{\"a\":1}").await;
        assert_eq!(answer.json(), json!({"role": "x&", "body": {"a": 1}}));
        assert_eq!(send("POST /api/users/login", &[], "").await.status, 200);
        assert_eq!(send("OPTIONS /api/interviews", &[], "").await.status, 401);
        assert_eq!(mine("POST /api/interviews").await.status, 405);
    }

    #[tokio::test]
    async fn no_redirect_leads_to_another_host() {
        for path in [
            "//evil.test/api/interviews",
            "//api/interviews",
            "/api//interviews",
            "/api/interviews//",
            "//evil.test",
            "//",
        ] {
            let answer = send(&format!("GET http://x.test{path}"), &[], "").await;
            assert_eq!(answer.detail(), told(NOT_FOUND), "{path}");
        }
    }

    // -- §3.5: headers

    #[tokio::test]
    async fn every_answer_has_the_common_headers() {
        let preflight = ["origin: http://localhost:3000", "access-control-request-method: GET"];
        let answers = [
            mine(&format!("GET {LIST}")).await,
            mine("POST /nope/").await,
            mine("GET /api/interviews").await,
            send("GET /api/interviews/", &[], "").await,
            send("GET /api/interviews/", &["accept: text/csv"], "").await,
            mine("PUT /api/interviews/").await,
            mine("GET /healthz").await,
            mine("GET /api/company/google/connect/").await,
            send("OPTIONS /nope/", &preflight, "").await,
        ];
        for answer in &answers {
            assert_eq!(answer.header("x-request-id").len(), 36);
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "same-origin"),
                ("cross-origin-opener-policy", "same-origin"),
                ("vary", "Accept, Cookie, origin"),
            ] {
                assert_eq!(answer.header(name), value, "{} {name}", answer.status);
            }
        }
        assert_ne!(answers[0].header("x-request-id"), answers[1].header("x-request-id"));
    }

    #[tokio::test]
    async fn answers_under_api_and_pages_are_not_stored_unless_their_handler_says_otherwise() {
        for path in [LIST, "/api/interviews", "/api/nope", "/api", "/api//", "/interviews/1/join/"] {
            assert_eq!(mine(&format!("GET {path}")).await.header("cache-control"), "no-store", "{path}");
        }
        for path in ["/healthz", "/nope", "/apiary/"] {
            assert_eq!(mine(&format!("GET {path}")).await.header("cache-control"), "", "{path}");
        }
        let own = mine("GET /interviews/1/join/?token=t").await;
        assert_eq!((own.header("cache-control"), own.header("referrer-policy")), ("private", "no-referrer"));
    }

    #[tokio::test]
    async fn html_may_keep_its_popups() {
        let answer = mine("GET /interviews/1/join/").await;
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin-allow-popups");
    }

    #[tokio::test]
    async fn existing_api_paths_say_their_methods_in_order() {
        for (line, allow) in [
            ("GET /api/company/interviews/", "GET, HEAD, OPTIONS"),
            ("PUT /api/company/interviews/1/", "GET, PATCH, DELETE, HEAD, OPTIONS"),
            ("OPTIONS /api/users/login/", "POST, OPTIONS"),
            ("GET /api/company/google/connect/", "GET, POST, HEAD, OPTIONS"),
            ("GET /api/company/interviews", ""),
            ("GET /api/nope/", ""),
            ("GET /healthz", ""),
            ("POST /healthz", "GET, HEAD, OPTIONS"),
        ] {
            assert_eq!(mine(line).await.header("allow"), allow, "{line}");
        }
        assert_eq!(send("PUT /api/users/login/", &["accept: x/y"], "").await.header("allow"), "POST, OPTIONS");
        assert_eq!(send("PUT /api/interviews/", &[], "").await.header("allow"), "GET, HEAD, OPTIONS");
    }

    #[tokio::test]
    async fn plain_options_describes_the_path_to_who_may_use_it() {
        assert_eq!(send(&format!("OPTIONS {LIST}"), &[], "").await.status, 401);
        let described = mine(&format!("OPTIONS {LIST}")).await;
        assert_eq!(described.status, 200);
        assert_eq!(
            described.json(),
            json!({"name": "list", "description": "All interviews", "renders": ["application/json"], "parses": [
                "application/json", "application/x-www-form-urlencoded", "multipart/form-data"]})
        );
        let half_a_preflight = send(&format!("OPTIONS {LIST}"), &[ME, "origin: http://localhost:3000"], "").await;
        assert_eq!(half_a_preflight.header("access-control-allow-methods"), "");
        assert!(half_a_preflight.json().is_object());
    }

    #[tokio::test]
    async fn a_harmless_request_id_is_kept_and_any_other_replaced() {
        for (sent, kept) in [
            ("abc-DEF_1.2", true),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
        ] {
            let answer = send("GET /healthz", &[&format!("x-request-id: {sent}")], "").await;
            assert_eq!(answer.header("x-request-id") == sent, kept, "{sent}");
            assert_ne!(answer.header("x-request-id"), "");
        }
    }

    // -- §3.6: CORS

    #[tokio::test]
    async fn a_preflight_of_an_allowed_origin_is_answered_for_any_url_without_credentials() {
        for path in ["/nope/", "/api/interviews", LIST, "/api//", "/healthz"] {
            for origin in [SPA, "https://app.test"] {
                let headers = [&format!("origin: {origin}"), "access-control-request-method: POST", "accept: text/csv"];
                let answer = send(&format!("OPTIONS {path}"), &headers, "").await;
                assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
                let mut cors = answer
                    .headers
                    .iter()
                    .filter(|(name, _)| name.as_str().starts_with("access-control"))
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect::<Vec<_>>();
                cors.sort();
                assert_eq!(
                    cors,
                    [
                        ("access-control-allow-credentials", "true"),
                        (
                            "access-control-allow-headers",
                            "accept, accept-encoding, authorization, baggage, cache-control, content-type, dnt, idempotency-key, origin, pragma, sentry-trace, traceparent, tracestate, user-agent, x-csrftoken, x-requested-with"
                        ),
                        ("access-control-allow-methods", "DELETE, GET, OPTIONS, PATCH, POST, PUT"),
                        ("access-control-allow-origin", origin),
                        ("access-control-max-age", "86400"),
                    ]
                );
            }
        }
    }

    #[tokio::test]
    async fn a_foreign_origin_gets_answers_that_its_browser_hides() {
        for origin in [
            "https://evil.test",
            "null",
            "http://localhost:30000",
            "http://LOCALHOST:3000",
            "http://localhost:3000/",
            "*",
            "",
        ] {
            let origin = format!("origin: {origin}");
            let preflight = send("OPTIONS /nope/", &[&origin, "access-control-request-method: POST"], "").await;
            assert_eq!((preflight.status, preflight.body.as_str()), (200, ""));
            for answer in [preflight, send(&format!("GET {LIST}"), &[ME, &origin], "").await] {
                assert_eq!(answer.status, 200);
                assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{origin}");
            }
        }
    }

    #[tokio::test]
    async fn every_other_answer_lets_an_allowed_origin_read_it_errors_included() {
        let origin = format!("origin: {SPA}");
        for (line, headers) in [
            ("GET /api/interviews/", vec![ME]),
            ("GET /nope/", vec![]),
            ("GET /api/interviews", vec![]),
            ("GET /api/interviews/", vec![]),
            ("GET /api/interviews/", vec!["accept: text/csv"]),
            ("PUT /api/interviews/", vec![ME]),
            ("OPTIONS /api/interviews/", vec![ME]),
        ] {
            let headers: Vec<&str> = headers.into_iter().chain([origin.as_str()]).collect();
            let answer = send(line, &headers, "").await;
            assert_eq!(answer.header("access-control-allow-origin"), SPA, "{line}");
            assert_eq!(answer.header("access-control-allow-credentials"), "true");
            let exposed = "Idempotency-Replayed, Link, Retry-After, X-Request-Id";
            assert_eq!(answer.header("access-control-expose-headers"), exposed);
            assert_eq!(answer.header("access-control-max-age"), "");
        }
        let none = mine(&format!("GET {LIST}")).await;
        assert!(!none.headers.keys().any(|name| name.as_str().starts_with("access-control")));
    }

    // -- the table of routes

    #[test]
    fn nesting_with_final_slashes_gives_router_and_document_the_same_paths() {
        let (_, document) = product(LONG);
        let paths: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        for mount in ["/api/company/interviews/", "/api/interviews/"] {
            for rest in ["", "analytics/", "{id}/", "{id}/calendar.ics"] {
                assert!(paths.contains(&format!("{mount}{rest}").as_str()), "{mount}{rest} is not in {paths:?}");
            }
        }
    }

    // -- what is logged

    #[tokio::test]
    async fn a_request_is_one_line_with_its_template_and_without_anything_it_carried() {
        let lines = Lines::new();
        let writer = lines.clone();
        let everything = Targets::new().with_default(LevelFilter::TRACE);
        let subscriber = telemetry::subscriber(everything, LogFormat::Text, move || writer.clone(), false);
        let guard = tracing::subscriber::set_default(subscriber);
        let headers = [ME, "x-request-id: id-1", "cookie: umemployed_portal=sesame", "content-type: text/sesame"];
        send("PATCH /api/interviews/4711?token=sesame", &headers, "sesame").await;
        send("GET /sesame/?token=sesame", &["authorization: Bearer sesame"], "").await;
        send("SESAME /api/interviews/4711/?token=sesame", &[ME], "").await;
        drop(guard);
        let text = lines.text();
        assert!(!text.to_lowercase().contains("sesame") && !text.contains("4711") && !text.contains("good"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        for part in ["id-1", "PATCH", "/api/interviews/{id}/", "status=415", "milliseconds="] {
            assert!(lines[0].contains(part), "{part} is missing in {}", lines[0]);
        }
        assert!(lines[1].contains("unmatched") && lines[1].contains("status=404"), "{}", lines[1]);
        assert!(lines[2].contains("other") && lines[2].contains("status=405"), "{}", lines[2]);
    }

    // -- anything at all

    fn path() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            4 => prop::sample::select(vec!["api", "company", "interviews", "analytics", "calendar.ics", "users", "login", "healthz", "join"]),
            2 => prop::sample::select(vec!["1", "501", "99999999999999999999", "%31", "1%2F", "%", "..", ".", "{id}", "*", "%00"]),
        ];
        let shaped = (
            prop::sample::select(vec!["/", "/api/interviews/", "/api/company/interviews/", "/interviews/"]),
            prop::collection::vec(segment, 0..4),
            prop::sample::select(vec!["", "/", "//", "?x", "/?x=%zz"]),
        )
            .prop_map(|(start, segments, end)| format!("{start}{}{end}", segments.join("/")));
        prop_oneof![3 => shaped, 1 => "/\\PC{0,30}"]
    }

    #[test]
    fn a_navigation_is_known_by_its_mode_or_by_wanting_html() {
        let of = |name: &'static str, value| {
            is_navigation(&HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]))
        };
        assert!(of("sec-fetch-mode", "navigate") && of("accept", "text/html,application/xhtml+xml;q=0.9"));
        assert!(!of("sec-fetch-mode", "cors") && !of("accept", "*/*") && !of("accept", "application/json"));
        assert!(!is_navigation(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn no_request_makes_the_door_panic_and_its_matching_agrees_with_the_router(
            path in path(),
            method in prop::sample::select(vec!["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "ODD"]),
            accept in prop_oneof!["(application/json|text/\\*|\\*/\\*|\\*|;|,|q|=|0|1|\\.| |\t){0,8}".boxed(), Just("*/*".into()).boxed()],
            accept_bytes in prop::collection::vec(any::<u8>().prop_filter("allowed in a header", |byte| *byte >= 32 && *byte != 127), 0..10),
            content_type in prop::sample::select(vec!["application/json", "multipart/form-data; boundary=b", "x"]),
            body in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let request = Request::builder()
                .method(method)
                .uri(path.as_str())
                .header("host", "x.test")
                .header("accept", accept)
                .header("accept", HeaderValue::from_bytes(&accept_bytes).unwrap())
                .header("content-type", content_type)
                .header("authorization", "Bearer good")
                .body(Body::from(body));
            let Ok(request) = request else { return Ok(()) };
            let found = product_routes().find(request.uri().path()).map(|(route, _)| route.template.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let answer = runtime.block_on(deliver(request));
            prop_assert!(answer.status < 500, "{}", answer.status);
            prop_assert_eq!(answer.header("x-frame-options"), "DENY");
            match answer.header("x-matched") {
                "" => {}
                matched => prop_assert_eq!(Some(matched), found.as_deref()),
            }
            prop_assert!(!answer.header("location").starts_with("//"));
        }
    }

    fn product_routes() -> &'static Routes {
        static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
            Routes::from_openapi(&product(LONG).1).with("/interviews/{id}/join/", &[Method::GET, Method::POST])
        });
        &ROUTES
    }
}
