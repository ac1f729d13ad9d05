//! Holds every answer that a test sees against the server's OpenAPI document.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use interviews::app;
use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use super::Answer;

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| app::document().unwrap());

/// Fails unless the document says that a request of this method and path may be answered so. What it does not describe
/// (pages, other methods, unknown URLs) is not looked at.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else { return };
    let said = format!("{method} {path} answers {answer:?}");
    let status = answer.status.as_str();
    let response = &operation["responses"][status];
    assert!(response.is_object(), "the document does not know this status: {said}");

    let documented = response["headers"].as_object().unwrap();
    for (name, header) in documented {
        let header = header["$ref"].as_str().map_or(header, |to| DOCUMENT.pointer(&to[1..]).unwrap());
        let missing = header["required"] == true && answer.header(name).is_none();
        assert!(!missing, "the document says that there is always a {name}: {said}");
    }
    for name in ["location", "link", "retry-after", "idempotency-replayed", "www-authenticate", "content-disposition"] {
        let known = documented.keys().any(|documented| documented.eq_ignore_ascii_case(name));
        assert!(known || answer.header(name).is_none(), "the document does not know this {name}: {said}");
    }

    let Some(content) = response["content"].as_object() else {
        assert_eq!(answer.text, "", "the document says that there is no body: {said}");
        return;
    };
    let content = content.get(answer.header("content-type").unwrap_or_default());
    let content = content.unwrap_or_else(|| panic!("the document does not know this media type: {said}"));
    if method != Method::HEAD && answer.header("content-type") == Some("application/json") {
        let validator = validator(&content["schema"]);
        let faults: Vec<String> = validator.iter_errors(&answer.json()).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "the document describes another body: {faults:?} in {said}");
    }
}

/// Made once for each schema of the document.
fn validator(schema: &'static Value) -> Arc<Validator> {
    static MADE: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let make = || {
        let schema = json!({"components": DOCUMENT["components"], "allOf": [schema]});
        Arc::new(jsonschema::options().should_validate_formats(true).build(&schema).unwrap())
    };
    MADE.lock().unwrap().entry(schema.to_string()).or_insert_with(make).clone()
}

/// The operation of a path such as `/api/interviews/501/`; a template's literal segments win over `{id}`.
fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let fits = |template: &str| {
        let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let same = |(template, segment): (&&str, &&str)| template == segment || template.starts_with('{');
        template.len() == path.len() && template.iter().zip(&path).all(same)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let item = paths.get(path).or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item))?;
    let method = if method == Method::HEAD { &Method::GET } else { method };
    item.get(method.as_str().to_lowercase())
}
