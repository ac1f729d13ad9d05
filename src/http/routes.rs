//! Which URLs there are, with their methods, credentials and media types, as the OpenAPI document tells: how a path as
//! sent finds its [`Route`], and whether an `Accept` is satisfied by it.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use utoipa::openapi::{OpenApi, RefOr, path::Operation, security::SecurityRequirement};

use super::extract;

pub(super) const JSON: &str = "application/json";
pub(super) const HTML: &str = "text/html";

/// A URL's template with what the door has to know of it.
#[derive(Debug, Clone)]
pub struct Route {
    /// `/api/company/interviews/{id}/`: what logs and metrics may name.
    pub template: String,
    /// In the order of the header `Allow`; HEAD where there is GET, and OPTIONS.
    pub methods: Vec<Method>,
    /// Whether the path is for signed-in callers alone, whatever the method.
    pub credentials: bool,
    /// Whether a browser may come by its portal session too (the security scheme `portal_session`).
    pub session: bool,
    pub(super) name: String,
    pub(super) description: String,
    /// Media types of the answers, without parameters.
    pub(super) renders: Vec<String>,
}

impl Route {
    /// Below `/api`, not a page or a probe.
    pub fn is_api(&self) -> bool {
        is_api(&self.template)
    }

    fn new(template: &str, methods: &[Method]) -> Self {
        let mut allowed: Vec<Method> = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            .into_iter()
            .filter(|method| methods.contains(method))
            .collect();
        if allowed.contains(&Method::GET) {
            allowed.push(Method::HEAD);
        }
        allowed.push(Method::OPTIONS);
        Route {
            template: template.to_owned(),
            methods: allowed,
            credentials: false,
            session: false,
            name: template.to_owned(),
            description: String::new(),
            renders: vec![JSON.to_owned()],
        }
    }

    pub(super) fn allow(&self) -> HeaderValue {
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
    }

    /// Whether one of the answers' media types, or HTML, satisfies `Accept` (contract §3.3).
    pub(super) fn satisfies(&self, headers: &HeaderMap) -> bool {
        let ranges = accepted(headers);
        ranges.is_empty() || self.renders.iter().map(String::as_str).chain([HTML]).any(|offer| admits(&ranges, offer))
    }
}

/// All URLs of the server: to every other one the door says that it does not exist.
#[derive(Default)]
pub struct Routes {
    tree: matchit::Router<Arc<Route>>,
    all: Vec<Arc<Route>>,
}

impl Routes {
    /// The document's paths. A path needs credentials when one of its operations does: by its own `security`, else by
    /// the document's; `security(())` makes an operation public.
    ///
    /// # Panics
    /// When two templates match the same URLs, as axum's router does.
    pub fn from_openapi(document: &OpenApi) -> Routes {
        let mut routes = Routes::default();
        for (template, item) in &document.paths.paths {
            let operations: Vec<(Method, &Operation)> = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ]
            .into_iter()
            .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
            .collect();
            let methods: Vec<Method> = operations.iter().map(|(method, _)| method.clone()).collect();
            let mut route = Route::new(template, &methods);
            for (_, operation) in operations.iter().rev() {
                let security = operation.security.as_ref().or(document.security.as_ref());
                route.credentials |=
                    security.is_some_and(|any| !any.is_empty() && !any.contains(&SecurityRequirement::default()));
                route.session |= security.is_some_and(|any| any.contains(&portal_session()));
                route.name = operation.operation_id.clone().unwrap_or(route.name);
                route.description = operation.summary.clone().unwrap_or(route.description);
                route.renders.extend(media_types(operation));
            }
            route.renders.sort();
            route.renders.dedup();
            routes.insert(route);
        }
        routes
    }

    /// Adds a public URL that the document does not list, such as a page.
    ///
    /// # Panics
    /// As [`from_openapi`](Self::from_openapi).
    pub fn with(mut self, template: &str, methods: &[Method]) -> Routes {
        self.insert(Route::new(template, methods));
        self
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.all.iter().map(Arc::as_ref)
    }

    fn insert(&mut self, route: Route) {
        let route = Arc::new(route);
        if let Err(error) = self.tree.insert(route.template.clone(), route.clone()) {
            panic!("two routes match the same URLs: {error}");
        }
        self.all.push(route);
    }

    /// The route of a path as sent (percent-encoding included, as axum's router reads it), and whether the path lacks
    /// its final slash. An empty segment matches nothing, so that a redirect can never lead to `//another.host/`.
    pub(super) fn find(&self, path: &str) -> Option<(&Arc<Route>, Slash)> {
        if !path.starts_with('/') || path.contains("//") {
            return None;
        }
        match self.at(path) {
            Some(route) => Some((route, Slash::AsIs)),
            None if path.ends_with('/') => None,
            None => Some((self.at(&format!("{path}/"))?, Slash::Missing)),
        }
    }

    fn at(&self, path: &str) -> Option<&Arc<Route>> {
        let found = self.tree.at(path).ok()?;
        let digits = |value: &str| value.bytes().all(|byte| byte.is_ascii_digit());
        let fits = |(name, value): (&str, &str)| match name {
            "id" | "nid" => digits(value),
            _ => is_utf8(value),
        };
        found.params.iter().all(fits).then_some(found.value)
    }
}

/// Whether a percent-encoded part of a path stands for a text.
fn is_utf8(part: &str) -> bool {
    percent_encoding::percent_decode_str(part).decode_utf8().is_ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slash {
    AsIs,
    Missing,
}

fn portal_session() -> SecurityRequirement {
    SecurityRequirement::new::<_, [&str; 0], &str>("portal_session", [])
}

/// The media types an operation's answers are documented with.
fn media_types(operation: &Operation) -> impl Iterator<Item = String> {
    operation
        .responses
        .responses
        .values()
        .filter_map(|response| match response {
            RefOr::T(response) => Some(response.content.keys()),
            RefOr::Ref(_) => None,
        })
        .flatten()
        .map(|media_type| extract::essence(media_type))
}

pub(super) fn is_api(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// The media ranges of all `Accept` headers, each with whether it is wanted (`q` is not 0); RFC 9110 §12.5.1.
fn accepted(headers: &HeaderMap) -> Vec<(String, bool)> {
    let lines =
        headers.get_all(header::ACCEPT).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let ranges = lines.collect::<Vec<_>>().join(",");
    let ranges = ranges.split(',').filter(|range| !range.trim().is_empty()).map(|range| {
        let quality = range.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())?
        });
        let range = extract::essence(range);
        // Java's HTTP client says `*` for `*/*`.
        (if range == "*" { "*/*".to_owned() } else { range }, quality != Some(0.0))
    });
    ranges.collect()
}

/// Whether the most specific of `ranges` that matches `offer` wants it.
fn admits(ranges: &[(String, bool)], offer: &str) -> bool {
    let family = offer.split_once('/').map_or(offer.to_owned(), |(family, _)| format!("{family}/*"));
    let wanted = [offer, &family, "*/*"].into_iter().find_map(|form| {
        let mut verdicts = ranges.iter().filter(|(range, _)| range == form).map(|(_, wanted)| *wanted).peekable();
        verdicts.peek()?;
        Some(verdicts.any(|wanted| wanted))
    });
    wanted.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn credentials_come_from_the_operation_else_from_the_document() {
        let document: OpenApi = serde_json::from_value(json!({
            "openapi": "3.1.0",
            "info": {"title": "", "version": ""},
            "security": [{"bearer": []}],
            "paths": {
                "/api/list/": {"get": {"responses": {}}},
                "/api/login/": {"post": {"responses": {}, "security": []}},
                "/api/probe/": {"get": {"responses": {}, "security": [{}]}},
                "/api/own/": {"get": {"responses": {}, "security": [{"portal_session": []}]}},
            },
        }))
        .unwrap();
        let routes = Routes::from_openapi(&document).with("/page/", &[Method::GET]);
        let of = |path| routes.find(path).map(|(route, _)| (route.credentials, route.session));
        assert_eq!(of("/api/list/"), Some((true, false)));
        assert_eq!(of("/api/own/"), Some((true, true)));
        for public in ["/api/login/", "/api/probe/", "/page/"] {
            assert_eq!(of(public), Some((false, false)), "{public}");
        }
    }

    #[test]
    fn json_satisfies_whoever_admits_json_html_or_anything() {
        let good: [&[&str]; 12] = [
            &[],
            &[""],
            &["application/json"],
            &["APPLICATION/JSON; indent=4"],
            &["application/json, text/plain, */*"],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            &["text/html"],
            &["application/*"],
            &["text/*;q=0.1"],
            &["*"],
            &["text/csv", "application/json;q=0.001"],
            &["application/json;q=0, text/html"],
        ];
        let bad: [&[&str]; 9] = [
            &["text/csv"],
            &["application/xml"],
            &["text/calendar"],
            &["image/*"],
            &["application/json;q=0"],
            &["application/json; Q=0.000, application/*"],
            &["*/*;q=0"],
            &["text/csv", "application/xml"],
            &["nonsense"],
        ];
        let route = Route::new("/api/list/", &[Method::GET]);
        for (accept, satisfied) in good.iter().map(|good| (good, true)).chain(bad.iter().map(|bad| (bad, false))) {
            let headers = accept.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value))).collect();
            assert_eq!(route.satisfies(&headers), satisfied, "{accept:?}");
        }
    }
}
