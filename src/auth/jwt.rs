//! Access and refresh tokens in SimpleJWT's form: HS256 JWTs ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) under
//! the key shared with Django, so that either side accepts the other's.
//!
//! The library signs and checks signatures; claims are checked here, because the order of the checks and the words of
//! a refusal are Django's, and because time comes from our clock.

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde_json::{Map, Value, json};

use crate::{clock::random_uuid, http::Error};

/// What a token is for: `access` opens the API, `refresh` is issued because Django's answer holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    Access,
    Refresh,
}

impl TokenType {
    fn claim(self) -> &'static str {
        match self {
            TokenType::Access => "access",
            TokenType::Refresh => "refresh",
        }
    }
}

/// Why a caller is not known: the rows of the 401 table of contract §4.3, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    NoCredentials,
    MalformedHeader,
    InvalidToken,
    Expired,
    NoExpiry,
    NoId,
    NoType,
    WrongType,
    NoUserClaim,
    NoSuchUser,
    Inactive,
}

impl Stranger {
    /// The 401 in SimpleJWT's words.
    pub fn refusal(self) -> Error {
        let coded = |detail: &str, code: &str| json!({ "detail": detail, "code": code });
        let invalid = |message: &str| {
            json!({
                "detail": "Given token not valid for any token type",
                "code": "token_not_valid",
                "messages": [{ "token_class": "AccessToken", "token_type": "access", "message": message }],
            })
        };
        Error::Unauthenticated(match self {
            Stranger::NoCredentials => json!({ "detail": "Authentication credentials were not provided." }),
            Stranger::MalformedHeader => {
                coded("Authorization header must contain two space-delimited values", "bad_authorization_header")
            }
            Stranger::InvalidToken => invalid("Token is invalid"),
            Stranger::Expired => invalid("Token is expired"),
            Stranger::NoExpiry => invalid("Token has no 'exp' claim"),
            Stranger::NoId => invalid("Token has no id"),
            Stranger::NoType => invalid("Token has no type"),
            Stranger::WrongType => invalid("Token has wrong type"),
            Stranger::NoUserClaim => coded("Token contained no recognizable user identification", "token_not_valid"),
            Stranger::NoSuchUser => coded("User not found", "user_not_found"),
            Stranger::Inactive => coded("User is inactive", "user_inactive"),
        })
    }
}

/// A token for `user_id` that is valid from `now` until `expires`, both cut to whole seconds.
pub fn issue(kind: TokenType, user_id: i64, now: DateTime<Utc>, expires: DateTime<Utc>, key: &[u8]) -> String {
    // Written out, because both the header's and the claims' order are part of the form.
    let claims = format!(
        r#"{{"token_type":"{}","exp":{},"iat":{},"jti":"{}","user_id":{user_id}}}"#,
        kind.claim(),
        expires.timestamp(),
        now.timestamp(),
        random_uuid().simple(),
    );
    sign(r#"{"alg":"HS256","typ":"JWT"}"#, &claims, key)
}

fn sign(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256)
        .expect("HMAC takes any key and any message");
    format!("{message}.{signature}")
}

/// The token of an `Authorization: Bearer <token>` header; `None` without one: no header, an empty one, another scheme
/// (`bearer` is another).
pub fn bearer(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Stranger> {
    // Repeated headers are one header with commas, as a WSGI server hands them to Django.
    let values: Vec<&[u8]> = headers.get_all(header::AUTHORIZATION).iter().map(|value| value.as_bytes()).collect();
    let value = values.join(&b',');
    let mut parts = value.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
    if parts.next() != Some(b"Bearer") {
        return Ok(None);
    }
    match (parts.next(), parts.next()) {
        (Some(token), None) => Ok(Some(token.to_vec())),
        _ => Err(Stranger::MalformedHeader),
    }
}

/// What an access token says.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    pub user_id: i64,
    /// `iat`: seconds since 1970; `None` when it does not say.
    pub issued_at: Option<f64>,
}

/// What an access token says, once its signature and all its claims have been checked.
///
/// Whether such a user exists, may come in, and has had the token revoked, is the caller's to ask.
pub fn verify(token: &[u8], key: &[u8], now: DateTime<Utc>) -> Result<Access, Stranger> {
    let mut signature_alone = Validation::new(Algorithm::HS256);
    signature_alone.required_spec_claims.clear();
    signature_alone.validate_exp = false;
    signature_alone.validate_aud = false;
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &DecodingKey::from_secret(key), &signature_alone)
        .map_err(|_| Stranger::InvalidToken)?
        .claims;

    // Django's library looks at `exp` before it asks whether it is there.
    if let Some(expiry) = claims.get("exp") {
        let expiry = expiry.as_f64().ok_or(Stranger::InvalidToken)?;
        if expiry <= now.timestamp_micros() as f64 / 1e6 {
            return Err(Stranger::Expired);
        }
    } else {
        return Err(Stranger::NoExpiry);
    }
    if !claims.contains_key("jti") {
        return Err(Stranger::NoId);
    }
    let kind = claims.get("token_type").ok_or(Stranger::NoType)?;
    if kind != TokenType::Access.claim() {
        return Err(Stranger::WrongType);
    }
    let user_id = match claims.get("user_id").ok_or(Stranger::NoUserClaim)? {
        Value::Number(id) => id.as_i64(),
        Value::String(id) => id.trim().parse().ok(),
        _ => None,
    };
    let issued_at = claims.get("iat").and_then(Value::as_f64);
    Ok(Access { user_id: user_id.ok_or(Stranger::NoSuchUser)?, issued_at })
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, http::HeaderValue, response::IntoResponse};
    use proptest::prelude::*;

    use super::*;

    const KEY: &[u8] = "a key with ümlauts".as_bytes();
    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn issued(kind: TokenType, lifetime: i64) -> String {
        issue(kind, 101, now(), now() + chrono::Duration::seconds(lifetime), KEY)
    }

    /// Whom a token lets in.
    fn verify(token: &[u8], key: &[u8], now: DateTime<Utc>) -> Result<i64, Stranger> {
        super::verify(token, key, now).map(|access| access.user_id)
    }

    /// What becomes of a rightly signed token with these claims.
    fn claims(claims: Value) -> Result<i64, Stranger> {
        verify(sign(HS256, &claims.to_string(), KEY).as_bytes(), KEY, now())
    }

    /// The usual claims, changed: a null in `changes` stays a null, `"-"` removes the claim.
    fn changed(changes: Value) -> Result<i64, Stranger> {
        let mut all = json!({"token_type": "access", "exp": 1_800_000_060, "iat": 1, "jti": "0", "user_id": 101});
        for (claim, value) in changes.as_object().unwrap() {
            match value == "-" {
                true => _ = all.as_object_mut().unwrap().remove(claim),
                false => all[claim] = value.clone(),
            }
        }
        claims(all)
    }

    fn decoded(part: &str) -> String {
        String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn an_issued_token_has_djangos_header_and_claims() {
        let token = issued(TokenType::Refresh, 60);
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(decoded(parts[0]), HS256);
        let claims: Value = serde_json::from_str(&decoded(parts[1])).unwrap();
        let jti = claims["jti"].as_str().unwrap();
        assert!(jti.len() == 32 && jti.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')), "{jti}");
        let expected =
            json!({"token_type": "refresh", "exp": 1_800_000_060, "iat": 1_800_000_000, "jti": jti, "user_id": 101});
        assert_eq!(claims, expected);
        assert_ne!(token, issued(TokenType::Refresh, 60), "every token has its own jti");
    }

    #[test]
    fn a_signature_made_elsewhere_is_accepted() {
        // Computed with Python's hmac and hashlib.
        let token = concat!(
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
            "eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxOTAwMDAwMDAwLCJqdGkiOiIwIiwidXNlcl9pZCI6IjEwMSJ9.",
            "dZ_k_hXzhN4zODiwSt71hj5LSeY6MNdTML_NuryHxfM"
        );
        assert_eq!(verify(token.as_bytes(), KEY, now()), Ok(101));
    }

    #[test]
    fn an_access_token_opens_until_the_second_it_expires() {
        let token = issued(TokenType::Access, 60);
        let at = |micros| verify(token.as_bytes(), KEY, now() + chrono::Duration::microseconds(micros));
        assert_eq!(at(0), Ok(101));
        assert_eq!(at(59_999_999), Ok(101));
        assert_eq!(at(60_000_000), Err(Stranger::Expired));
        assert_eq!(verify(issued(TokenType::Refresh, 60).as_bytes(), KEY, now()), Err(Stranger::WrongType));
    }

    #[test]
    fn garbage_and_foreign_signatures_are_invalid() {
        let good = issued(TokenType::Access, 60);
        let (message, signature) = good.rsplit_once('.').unwrap();
        let other_key = issue(TokenType::Access, 101, now(), now() + chrono::Duration::days(1), b"other");
        let cut = &good[..good.len() - 1];
        let no_signature = format!("{message}.");
        let longer = format!("{good}.{signature}");
        for token in
            ["undefined", "null", "", ".", "..", "a.b.c", "\u{fe}\u{ff}", &other_key, cut, &no_signature, &longer]
        {
            assert_eq!(verify(token.as_bytes(), KEY, now()), Err(Stranger::InvalidToken), "{token}");
        }
        assert_eq!(verify(b"\xff\xfe.\x80.\x00", KEY, now()), Err(Stranger::InvalidToken));
        for claims in ["[]", "null", "7", "\"x\"", "", "{", r#"{"exp":1e999}"#] {
            let token = sign(HS256, claims, KEY);
            assert_eq!(verify(token.as_bytes(), KEY, now()), Err(Stranger::InvalidToken), "{claims}");
        }
    }

    #[test]
    fn any_other_algorithm_is_invalid_even_with_the_right_key() {
        let claims = r#"{"token_type":"access","exp":1900000000,"jti":"0","user_id":101}"#;
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"HS384"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"typ":"JWT"}"#,
            "{}",
            "[]",
        ] {
            let token = sign(header, claims, KEY);
            assert_eq!(verify(token.as_bytes(), KEY, now()), Err(Stranger::InvalidToken), "{header}");
            let unsigned = &token[..=token.rfind('.').unwrap()];
            assert_eq!(verify(unsigned.as_bytes(), KEY, now()), Err(Stranger::InvalidToken), "{header} unsigned");
        }
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let header = jsonwebtoken::Header::new(algorithm);
            let claims: Value = serde_json::from_str(claims).unwrap();
            let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(KEY)).unwrap();
            assert_eq!(verify(token.as_bytes(), KEY, now()), Err(Stranger::InvalidToken), "{algorithm:?}");
        }
    }

    #[test]
    fn claims_are_checked_in_djangos_order() {
        // Each step mends the first fault of the one before.
        let steps = [
            (json!({"exp": 1}), Stranger::Expired),
            (json!({}), Stranger::NoExpiry),
            (json!({"exp": 1_900_000_000}), Stranger::NoId),
            (json!({"exp": 1_900_000_000, "jti": "0"}), Stranger::NoType),
            (json!({"exp": 1_900_000_000, "jti": "0", "token_type": "refresh"}), Stranger::WrongType),
            (json!({"exp": 1_900_000_000, "jti": "0", "token_type": "access"}), Stranger::NoUserClaim),
            (json!({"exp": 1_900_000_000, "jti": "0", "token_type": "access", "user_id": null}), Stranger::NoSuchUser),
        ];
        for (body, expected) in steps {
            assert_eq!(claims(body.clone()), Err(expected), "{body}");
        }
    }

    #[test]
    fn neither_iat_nor_an_audience_is_asked_for() {
        assert_eq!(changed(json!({"iat": "-"})), Ok(101));
        assert_eq!(changed(json!({"aud": "someone", "iss": "someone"})), Ok(101));
    }

    #[test]
    fn odd_claims_are_refused_by_the_row_they_belong_to() {
        for exp in [json!(null), json!("1900000000"), json!(true), json!([]), json!({})] {
            assert_eq!(changed(json!({ "exp": exp })), Err(Stranger::InvalidToken), "{exp}");
        }
        for exp in [json!(0), json!(-1), json!(i64::MIN), json!(-1e300), json!(1_800_000_000.0)] {
            assert_eq!(changed(json!({ "exp": exp })), Err(Stranger::Expired), "{exp}");
        }
        for exp in [json!(1_800_000_000.5), json!(1e300), json!(u64::MAX)] {
            assert_eq!(changed(json!({ "exp": exp })), Ok(101), "{exp}");
        }
        for kind in [json!(null), json!("Access"), json!(""), json!(["access"])] {
            assert_eq!(changed(json!({ "token_type": kind })), Err(Stranger::WrongType), "{kind}");
        }
        for id in [
            json!(null),
            json!("abc"),
            json!(""),
            json!(true),
            json!([101]),
            json!(101.5),
            json!(u64::MAX),
            json!("9e9"),
        ] {
            assert_eq!(changed(json!({ "user_id": id })), Err(Stranger::NoSuchUser), "{id}");
        }
        assert_eq!(changed(json!({"user_id": "101"})), Ok(101));
    }

    fn header(values: &[&str]) -> Result<Option<Vec<u8>>, Stranger> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        bearer(&headers)
    }

    #[test]
    fn the_header_is_split_as_django_splits_it() {
        for none in [&[][..], &[""], &["  "], &["bearer a"], &["Basic a"], &["Bearer,a"], &["Basic a", "Bearer a"]] {
            assert_eq!(header(none), Ok(None), "{none:?}");
        }
        for malformed in [&["Bearer"][..], &["Bearer "], &["Bearer a b"], &["Bearer a", "Bearer b"]] {
            assert_eq!(header(malformed), Err(Stranger::MalformedHeader), "{malformed:?}");
        }
        for (value, token) in [("Bearer a", "a"), ("\tBearer  \t a ", "a"), ("Bearer é\u{a0}b", "é\u{a0}b")] {
            assert_eq!(header(&[value]), Ok(Some(token.into())), "{value}");
        }
    }

    #[tokio::test]
    async fn every_refusal_is_a_401_with_its_challenge_and_djangos_words() {
        let body = async |stranger: Stranger| {
            let response = stranger.refusal().into_response();
            assert_eq!(response.status(), 401);
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"api\"");
            serde_json::from_slice::<Value>(&to_bytes(response.into_body(), 1000).await.unwrap()).unwrap()
        };
        let plain = json!({"detail": "Authentication credentials were not provided."});
        assert_eq!(body(Stranger::NoCredentials).await, plain);
        for (stranger, detail, code) in [
            (
                Stranger::MalformedHeader,
                "Authorization header must contain two space-delimited values",
                "bad_authorization_header",
            ),
            (Stranger::NoUserClaim, "Token contained no recognizable user identification", "token_not_valid"),
            (Stranger::NoSuchUser, "User not found", "user_not_found"),
            (Stranger::Inactive, "User is inactive", "user_inactive"),
        ] {
            assert_eq!(body(stranger).await, json!({"detail": detail, "code": code}));
        }
        for (stranger, message) in [
            (Stranger::InvalidToken, "Token is invalid"),
            (Stranger::Expired, "Token is expired"),
            (Stranger::NoExpiry, "Token has no 'exp' claim"),
            (Stranger::NoId, "Token has no id"),
            (Stranger::NoType, "Token has no type"),
            (Stranger::WrongType, "Token has wrong type"),
        ] {
            let messages = json!([{"token_class": "AccessToken", "token_type": "access", "message": message}]);
            let expected = json!({
                "detail": "Given token not valid for any token type",
                "code": "token_not_valid",
                "messages": messages,
            });
            assert_eq!(body(stranger).await, expected);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_a_token(token: Vec<u8>) {
            prop_assert_eq!(verify(&token, KEY, now()), Err(Stranger::InvalidToken));
        }

        #[test]
        fn three_random_parts_are_never_a_token(parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{43}") {
            prop_assert_eq!(verify(parts.as_bytes(), KEY, now()), Err(Stranger::InvalidToken));
        }

        #[test]
        fn a_token_with_one_changed_byte_is_invalid(at in 0usize..1000, byte in prop::char::range('!', '~')) {
            let mut token = issued(TokenType::Access, 60).into_bytes();
            let at = at % token.len();
            prop_assume!(token[at] != byte as u8);
            token[at] = byte as u8;
            prop_assert_eq!(verify(&token, KEY, now()), Err(Stranger::InvalidToken));
        }

        #[test]
        fn a_token_with_anything_inserted_or_left_out_is_invalid(at: prop::sample::Index, inserted in "[ -~]{0,3}", left_out in 0usize..4) {
            let token = issued(TokenType::Access, 60);
            let at = at.index(token.len());
            let changed = format!("{}{inserted}{}", &token[..at], &token[(at + left_out).min(token.len())..]);
            prop_assume!(changed != token);
            prop_assert_eq!(verify(changed.as_bytes(), KEY, now()), Err(Stranger::InvalidToken));
        }

        #[test]
        fn rightly_signed_claims_of_any_kind_name_a_user_or_a_stranger(
            claim in prop::sample::select(vec!["token_type", "exp", "iat", "jti", "user_id", "nbf", "aud"]),
            number: f64, whole: i64, text: String, kind in 0..6,
        ) {
            let value = match kind {
                0 => json!(number),
                1 => json!(whole),
                2 => json!(text),
                3 => json!([text, whole]),
                4 => json!({ text.clone(): number }),
                _ => json!(whole % 2 == 0),
            };
            let names = |id: i64| value == json!(id) || value.as_str().is_some_and(|text| text.trim().parse() == Ok(id));
            match changed(json!({ claim: value })) {
                Ok(id) if claim == "user_id" => prop_assert!(names(id)),
                Ok(id) => prop_assert!(id == 101 && claim != "token_type"),
                Err(Stranger::InvalidToken) => prop_assert!(["exp", "nbf", "aud"].contains(&claim)),
                Err(stranger) => prop_assert!(["token_type", "exp", "user_id"].contains(&claim), "{:?}", stranger),
            }
        }

        #[test]
        fn no_header_but_that_of_hs256_opens(algorithm in "[A-Za-z0-9]{0,6}", more in any::<String>()) {
            prop_assume!(algorithm != "HS256");
            let claims = r#"{"token_type":"access","exp":1900000000,"jti":"0","user_id":101}"#;
            let header = json!({ "alg": algorithm, "typ": more }).to_string();
            let token = sign(&header, claims, KEY);
            prop_assert_eq!(verify(token.as_bytes(), KEY, now()), Err(Stranger::InvalidToken));
        }

        #[test]
        fn an_issued_token_names_its_user(id: i64, seconds in 1i64..400_000_000) {
            let token = issue(TokenType::Access, id, now(), now() + chrono::Duration::seconds(seconds), KEY);
            prop_assert_eq!(verify(token.as_bytes(), KEY, now()), Ok(id));
        }
    }
}
