//! What verifies reCAPTCHA's tokens in Google's place.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Form, Router, http::StatusCode, routing::post};
use tokio::net::TcpListener;

use super::TestApp;

pub const SECRET: &str = "recaptcha-secret-of-the-tests";
pub const TOKEN: &str = "recaptcha-token-of-a-person";

/// A verifier: what it answers, and the forms it was sent.
#[derive(Clone)]
pub struct Verifier {
    url: String,
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<Mutex<Vec<HashMap<String, String>>>>,
}

impl Verifier {
    /// One that takes every token.
    pub async fn start() -> Verifier {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let verifier = Verifier {
            url: format!("http://{}/siteverify", listener.local_addr().unwrap()),
            answer: Arc::new(Mutex::new((StatusCode::OK, r#"{"success": true, "hostname": "x.test"}"#.into()))),
            asked: Arc::default(),
        };
        let shared = verifier.clone();
        let siteverify = async move |Form(form): Form<HashMap<String, String>>| {
            shared.asked.lock().unwrap().push(form);
            shared.answer.lock().unwrap().clone()
        };
        let router = Router::new().route("/siteverify", post(siteverify));
        tokio::spawn(axum::serve(listener, router).into_future());
        verifier
    }

    pub fn answers(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), body.into());
    }

    /// What it was asked since the last call.
    pub fn asked(&self) -> Vec<HashMap<String, String>> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The product that relies on it.
    pub async fn app_with(&self, settings: &[(&str, &str)]) -> TestApp {
        let own = [("RECAPTCHA_SECRET_KEY", SECRET), ("RECAPTCHA_VERIFY_URI", &*self.url)];
        TestApp::start_with(&[&own, settings].concat()).await
    }

    pub async fn app(&self) -> TestApp {
        self.app_with(&[]).await
    }
}
