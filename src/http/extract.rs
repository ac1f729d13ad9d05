//! From a raw request to input: bodies, path ids, query parameters, the Idempotency-Key.
//!
//! Hides what clients may send (JSON, forms, nothing at all) and what can be wrong with it; promises that a handler
//! sees either a value or a refusal in the words of contract §3.2, which never repeats what was sent. Nothing here
//! refuses before the handler asks, because a missing row is told before a bad body (contract §3.1).

use std::{collections::HashMap, convert::Infallible, future::pending, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Multipart, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value, json};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::Type,
    },
};

use super::{Error, Result};

/// The most bytes a body may have whose sender is known.
pub const BODY_LIMIT: usize = 1 << 20;
/// The most bytes a stranger's body may have: as many as any number of clients may send at a time.
pub const SMALL_BODY: usize = 16 << 10;
/// So many larger bodies are read at once.
static LARGE_BODIES: Semaphore = Semaphore::const_new(32);

/// The media types a body may have.
pub const PARSED: [&str; 3] = [JSON, URL_ENCODED, MULTIPART];
const JSON: &str = "application/json";
const URL_ENCODED: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

/// A request's body, not read yet: read it after the row has been looked up. Must be a handler's last argument.
pub struct RequestBody {
    content_type: Option<HeaderValue>,
    encoding: Option<HeaderValue>,
    announced: Option<u64>,
    limits: BodyLimits,
    stopping: Option<Stopping>,
    body: Body,
}

/// What a body may be; among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Until when it has to be there.
    pub by: Option<Instant>,
    /// In bytes.
    pub most: usize,
}

/// Tells a request that the server stops; among its extensions.
#[derive(Debug, Clone)]
pub struct Stopping(Arc<CancellationToken>);

impl Stopping {
    /// When this token is cancelled.
    pub fn at(stop: CancellationToken) -> Self {
        Stopping(Arc::new(stop))
    }

    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl<S: Sync> FromRequest<S> for RequestBody {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        let (parts, body) = request.into_parts();
        let header = |name| parts.headers.get(name);
        let announced = header(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let unlimited = BodyLimits { by: None, most: BODY_LIMIT };
        Ok(RequestBody {
            content_type: header(header::CONTENT_TYPE).cloned(),
            encoding: header(header::CONTENT_ENCODING).cloned(),
            announced,
            limits: parts.extensions.get().copied().unwrap_or(unlimited),
            stopping: parts.extensions.get().cloned(),
            body,
        })
    }
}

impl RequestBody {
    /// The same, of somebody who has turned out to be signed in: it may have [`BODY_LIMIT`].
    pub fn of_somebody_known(mut self) -> Self {
        self.limits.most = BODY_LIMIT;
        self
    }

    /// The body as JSON; of a form an object of strings, the last of equal names. An empty body is `{}`, whatever its
    /// media type. Files of a multipart form are left out; bytes of a form that are not UTF-8 become U+FFFD.
    ///
    /// Refuses with 413 and 408 (beyond its [`BodyLimits`], or not there when the server stops), 415 (compressed bodies
    /// too), and 400 for what cannot be parsed.
    pub async fn value(self) -> Result<Value> {
        let BodyLimits { by, most } = self.limits;
        if self.announced.is_some_and(|length| length > most as u64) {
            return Err(Error::BodyTooLarge);
        }
        let is_small = self.announced.map_or(most, |length| length as usize) <= SMALL_BODY;
        let collected = async {
            // Never closed; should it be, a body more is no harm.
            let _place = if is_small { None } else { LARGE_BODIES.acquire().await.ok() };
            Limited::new(self.body, most).collect().await
        };
        let collected = tokio::select! {
            biased;
            collected = collected => collected,
            () = too_late(by, self.stopping) => return Err(Error::BodyTooSlow),
        };
        let bytes = match collected {
            Ok(body) => body.to_bytes(),
            Err(fault) if fault.is::<LengthLimitError>() => return Err(Error::BodyTooLarge),
            Err(_) => return Err(Error::JsonParse("the body could not be read".into())),
        };
        if bytes.is_empty() {
            return Ok(json!({}));
        }
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        if let Some(encoding) = self.encoding.as_ref().map(text).filter(|encoding| essence(encoding) != "identity") {
            return Err(Error::UnsupportedEncoding(encoding));
        }
        let content_type = self.content_type.unwrap_or(HeaderValue::from_static(""));
        let sent = text(&content_type);
        match essence(&sent).as_str() {
            // serde_json's text names what it expected and where, never what it found.
            JSON => serde_json::from_slice(&bytes).map_err(|error| Error::JsonParse(error.to_string())),
            URL_ENCODED => Ok(form_urlencoded::parse(&bytes)
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect()),
            MULTIPART => multipart(content_type, bytes).await.map(Value::Object),
            _ => Err(Error::UnsupportedMediaType(sent)),
        }
    }

    /// [`value`](Self::value), which must be an object without U+0000 in its strings (PostgreSQL cannot store it).
    pub async fn object(self) -> Result<Map<String, Value>> {
        let Value::Object(fields) = self.value().await? else {
            return Err(Error::bad_request("Invalid data. Expected a JSON object."));
        };
        if fields.values().any(|value| value.as_str().is_some_and(|text| text.contains('\0'))) {
            return Err(Error::bad_request("Null characters are not allowed."));
        }
        Ok(fields)
    }
}

/// Waits until no body is waited for any longer.
async fn too_late(by: Option<Instant>, stopping: Option<Stopping>) {
    let passed = async {
        match by {
            Some(by) => tokio::time::sleep_until(by).await,
            None => pending().await,
        }
    };
    let stops = async {
        match &stopping {
            Some(Stopping(stop)) => stop.cancelled().await,
            None => pending().await,
        }
    };
    tokio::select! { () = passed => {} () = stops => {} }
}

/// A media type without its parameters, in lower case.
pub(super) fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// RFC 7578, by the parser axum brings.
async fn multipart(content_type: HeaderValue, bytes: Bytes) -> Result<Map<String, Value>> {
    let malformed = || {
        let detail = "Multipart form parse error - the body is not a form with the boundary of its Content-Type";
        Error::Body(StatusCode::BAD_REQUEST, json!({ "detail": detail }))
    };
    let mut request = Request::new(Body::from(bytes));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
    let mut fields = Map::new();
    while let Some(part) = form.next_field().await.map_err(|_| malformed())? {
        let name = part.name().filter(|_| part.file_name().is_none()).map(str::to_owned);
        let value = part.bytes().await.map_err(|_| malformed())?;
        if let Some(name) = name {
            fields.insert(name, String::from_utf8_lossy(&value).into());
        }
    }
    Ok(fields)
}

/// The number in the path, `{id}` or `{nid}`, which the door has checked to be digits; `None` beyond 64 bits: no row
/// has such an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathId(pub Option<i64>);

impl<S: Sync + Send> FromRequestParts<S> for PathId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let parameters = RawPathParams::from_request_parts(parts, state).await?;
        Ok(PathId(parameters.iter().next().and_then(|(_, digits)| digits.parse().ok())))
    }
}

/// The query's parameters, the last of equal names; bytes that are not UTF-8 become U+FFFD.
#[derive(Default)]
pub struct QueryParams(HashMap<String, String>);

impl QueryParams {
    /// A parameter's value; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<S: Sync> FromRequestParts<S> for QueryParams {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(QueryParams(form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()))
    }
}

/// The header `Idempotency-Key` as sent; checked by [`key`](Self::key), since other refusals come before its own.
pub struct IdempotencyKey(Vec<HeaderValue>);

impl IdempotencyKey {
    pub const NAME: &str = "Idempotency-Key";

    pub fn of(headers: &HeaderMap) -> Self {
        IdempotencyKey(headers.get_all("idempotency-key").iter().cloned().collect())
    }

    /// One header of 1–255 characters, or none. Bytes that are not UTF-8 are read as Latin-1, HTTP's old default.
    pub fn key(&self) -> Result<Option<String>> {
        let key = match self.0.as_slice() {
            [] => return Ok(None),
            [one] => std::str::from_utf8(one.as_bytes())
                .map_or_else(|_| one.as_bytes().iter().copied().map(char::from).collect(), str::to_owned),
            _ => String::new(),
        };
        match key.chars().count() {
            1..=255 => Ok(Some(key)),
            _ => Err(Error::bad_request("Invalid Idempotency-Key header.")),
        }
    }
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
        let description =
            "Of the caller's choice: with the same key and body, a request repeats the answer and nothing else";
        let header = ParameterBuilder::new().name(Self::NAME).parameter_in(ParameterIn::Header);
        vec![header.required(Required::False).schema(Some(text)).description(Some(description)).build()]
    }
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(IdempotencyKey::of(&parts.headers))
    }
}

/// Any JSON, with what fields of bodies are named and take more often than by chance.
#[cfg(test)]
pub fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;

    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-10..1000i64).prop_map(Value::from),
        (-10..1000i64).prop_map(|number| Value::from(number as f64 / 2.0)),
        any::<String>().prop_map(Value::from),
        "[0-9+:. -]{0,20}".prop_map(Value::from),
        prop::sample::select(vec!["UTC", "Asia/Tokyo", "phone", "2030-01-01", "14:00", "9999-12-31", "0001-01-01"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let key = prop_oneof![Just("email".to_owned()), Just("password".to_owned()), any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use proptest::prelude::*;

    use super::*;

    fn request(content_type: Option<&str>, body: impl Into<Body>) -> Request {
        let mut request = Request::new(body.into());
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_bytes(content_type.as_bytes()).unwrap();
            request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        request
    }

    async fn of(request: Request) -> RequestBody {
        RequestBody::from_request(request, &()).await.unwrap()
    }

    /// What a client would read.
    async fn answer(refusal: Error) -> (u16, Value) {
        let response = refusal.into_response();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn value(content_type: Option<&str>, body: impl Into<Body>) -> Result<Value, (u16, Value)> {
        match of(request(content_type, body)).await.value().await {
            Ok(value) => Ok(value),
            Err(refusal) => Err(answer(refusal).await),
        }
    }

    async fn object(body: &str) -> Result<Map<String, Value>, (u16, Value)> {
        match of(request(Some(JSON), body.to_owned())).await.object().await {
            Ok(object) => Ok(object),
            Err(refusal) => Err(answer(refusal).await),
        }
    }

    #[tokio::test]
    async fn json_is_read_whatever_the_parameters_and_the_case_of_its_media_type() {
        for content_type in [JSON, "application/json; charset=utf-8", "Application/JSON;charset=x"] {
            assert_eq!(value(Some(content_type), r#"{"a":[1,"é"]}"#).await, Ok(json!({"a": [1, "é"]})));
        }
        assert_eq!(value(Some(JSON), r#"{"a":1,"a":2}"#).await, Ok(json!({"a": 2})), "the last of equal names counts");
    }

    #[tokio::test]
    async fn an_empty_body_is_an_empty_object_whatever_its_media_type() {
        for content_type in [None, Some(JSON), Some("text/xml"), Some(URL_ENCODED), Some(MULTIPART)] {
            assert_eq!(value(content_type, "").await, Ok(json!({})), "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_json_is_refused_without_being_repeated() {
        let deep = "[".repeat(100_000);
        let bodies: [&[u8]; 12] = [
            b"sesame",
            b"{\"sesame\"",
            b"{\"a\":sesame}",
            b"{'sesame':1}",
            b"\"sesame",
            b"\"sesame\xff\"",
            b"\xef\xbb\xbf{}",
            b"{\"a\":NaN}",
            b"[Infinity]",
            b"[1e400]",
            b"{} sesame",
            deep.as_bytes(),
        ];
        for body in bodies {
            let (status, answer) = value(Some(JSON), body.to_vec()).await.unwrap_err();
            let detail = answer["detail"].as_str().unwrap();
            assert!(status == 400 && detail.starts_with("JSON parse error - "), "{answer}");
            assert!(!detail.contains("sesame") && answer.as_object().unwrap().len() == 1, "{answer}");
        }
    }

    #[tokio::test]
    async fn another_media_type_is_refused_by_the_name_it_was_sent_with() {
        for (content_type, named) in [
            (Some("text/xml"), "text/xml"),
            (Some("application/vnd.api+json; a=\"b\""), "application/vnd.api+json; a=\"b\""),
            (None, ""),
        ] {
            let detail = format!("Unsupported media type \"{named}\" in request.");
            assert_eq!(value(content_type, "{}").await, Err((415, json!({ "detail": detail }))));
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_by_its_announced_length_before_it_is_read() {
        let mut request = request(Some(JSON), "{}");
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(BODY_LIMIT + 1));
        let refusal = of(request).await.value().await.unwrap_err();
        assert_eq!(answer(refusal).await, (413, json!({"detail": "Request body too large."})));
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_refused_once_it_passes_the_limit() {
        let text = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(value(Some(JSON), text(BODY_LIMIT)).await.is_ok());
        let refused = Err((413, json!({"detail": "Request body too large."})));
        assert_eq!(value(Some(JSON), text(BODY_LIMIT + 1)).await, refused);
        assert_eq!(value(Some("text/xml"), text(BODY_LIMIT + 1)).await, refused);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_clients_fault() {
        let broken = Body::new(Limited::new(Body::from("{\"a\":1}"), 3));
        let detail = "JSON parse error - the body could not be read";
        assert_eq!(value(Some(JSON), broken).await, Err((400, json!({ "detail": detail }))));
    }

    #[tokio::test]
    async fn a_form_is_an_object_of_strings_in_which_the_last_of_equal_names_counts() {
        let form = "candidate_id=1&note=a+b%26%C3%A9&candidate_id=201&blank=&bad=%FF";
        let fields = json!({"candidate_id": "201", "note": "a b&é", "blank": "", "bad": "\u{fffd}"});
        assert_eq!(value(Some(URL_ENCODED), form).await, Ok(fields.clone()));
        assert_eq!(value(Some("application/x-www-form-urlencoded; charset=utf-8"), form).await, Ok(fields));
    }

    #[tokio::test]
    async fn a_multipart_form_is_an_object_of_strings_without_its_files() {
        let body = [
            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n",
            "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\n\r\nfile\r\n",
            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\né\r\n2\r\n",
            "--b\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n",
            "--b--\r\n",
        ]
        .concat();
        assert_eq!(value(Some("multipart/form-data; boundary=b"), body).await, Ok(json!({"a": "é\r\n2"})));
    }

    #[tokio::test]
    async fn a_malformed_multipart_form_is_refused() {
        let cut = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nsesame";
        for (content_type, body) in [
            ("multipart/form-data", cut),
            ("multipart/form-data; boundary=b", cut),
            ("multipart/form-data; boundary=other", cut),
            ("multipart/form-data; boundary=b", "sesame"),
        ] {
            let (status, answer) = value(Some(content_type), body).await.unwrap_err();
            let detail = answer["detail"].as_str().unwrap();
            assert!(status == 400 && detail.starts_with("Multipart form parse error - "), "{answer}");
            assert!(!detail.contains("sesame"), "{answer}");
        }
    }

    #[tokio::test]
    async fn an_object_is_asked_for_and_anything_else_refused() {
        for body in ["[]", "[{}]", "\"a\"", "1", "null", "true"] {
            let error = json!({"error": "Invalid data. Expected a JSON object."});
            assert_eq!(object(body).await, Err((400, error)), "{body}");
        }
        assert_eq!(object("{\"a\":null}").await.unwrap()["a"], Value::Null);
    }

    #[tokio::test]
    async fn a_null_character_in_a_string_field_is_refused() {
        let error = json!({"error": "Null characters are not allowed."});
        assert_eq!(object("{\"a\":1,\"b\":\"x\\u0000y\"}").await, Err((400, error)));
        assert!(object("{\"a\":\"\\u0001\"}").await.is_ok());
    }

    #[test]
    fn an_idempotency_key_is_any_string_of_1_to_255_characters() {
        let key = |values: &[&[u8]]| {
            let headers = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
            IdempotencyKey(headers.collect()).key().map_err(|_| ())
        };
        let é = "é".repeat(255);
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"k 1,;\""]), Ok(Some("k 1,;\"".into())));
        assert_eq!(key(&[é.as_bytes()]), Ok(Some(é.clone())), "characters count, not bytes");
        assert_eq!(key(&[b"caf\xe9"]), Ok(Some("café".into())), "what is not UTF-8 is Latin-1");
        assert_eq!(key(&[b""]), Err(()));
        assert_eq!(key(&["x".repeat(256).as_bytes()]), Err(()));
        assert_eq!(key(&[b"a", b"b"]), Err(()), "which of two is meant?");
    }

    #[tokio::test]
    async fn an_empty_query_parameter_counts_as_absent_and_bad_bytes_are_replaced() {
        let (mut parts, ()) =
            axum::http::Request::builder().uri("/?a=&b=1&b=2+3&c=%FF%zz").body(()).unwrap().into_parts();
        let Ok(query) = QueryParams::from_request_parts(&mut parts, &()).await;
        assert_eq!((query.get("a"), query.get("none")), (None, None));
        assert_eq!((query.get("b"), query.get("c")), (Some("2 3"), Some("\u{fffd}%zz")));
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic_or_fail_as_if_it_were_our_fault(
            content_type in "(application/json|application/x-www-form-urlencoded|multipart/form-data; ?boundary=[ab\"]{0,3}|[ -~]{0,20})",
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "(--[ab]{1,2}(\r\n|--)?|Content-Disposition: form-data; name=\"?a\"?|\r\n|[\\[{\":,}\\]0-9eE.]){0,30}"
                    .prop_map(String::into_bytes),
            ],
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let outcome = runtime.block_on(value(Some(&content_type), body));
            if let Err((status, _)) = outcome {
                prop_assert!(matches!(status, 400 | 415), "{status}");
            }
        }
    }
}
