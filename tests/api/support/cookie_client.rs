//! The portal's pages over HTTP, as a browser without scripts asks for them.

use reqwest::{Method, RequestBuilder};

use super::{Answer, PASSWORD, TestApp, page::Page, send};

/// Somebody's cookies: it keeps what it is given, and sends the hidden fields of forms.
pub struct CookieClient<'a> {
    app: &'a TestApp,
    pub cookies: Vec<(String, String)>,
}

impl<'a> CookieClient<'a> {
    pub fn new(app: &'a TestApp) -> Self {
        CookieClient { app, cookies: Vec::new() }
    }

    /// Somebody of the fixture, signed in.
    pub async fn of(app: &'a TestApp, email: &str) -> Self {
        let mut client = CookieClient::new(app);
        let answer = client.sign_in(email).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        client
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = self.app.request(method, path).header("accept", "text/html,application/xhtml+xml");
        if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) }
    }

    async fn send(&mut self, request: RequestBuilder) -> Answer {
        let answer = send(request).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends the page's one form of this action, with these fields filled in.
    pub async fn submit(&mut self, page: &Answer, action: &str, fields: &[(&str, &str)]) -> Answer {
        let page = Page::of(page);
        let form = page.one(&format!("form[action='{action}']"));
        let hidden = form.all("input[type=hidden]");
        let mut form: Vec<_> =
            hidden.iter().map(|field| ["name", "value"].map(|part| field.attribute(part).unwrap())).collect();
        form.extend(fields.iter().map(|(name, value)| [*name, *value]));
        self.send(self.request(Method::POST, action).form(&form)).await
    }

    /// What a page's script asks for.
    pub async fn fetch(&mut self, path: &str) -> Answer {
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}; ")).collect::<String>();
        self.send(self.app.request(Method::GET, path).header("accept", "application/json").header("cookie", cookies))
            .await
    }

    /// Sends these fields and nothing else.
    pub async fn post(&mut self, action: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(self.request(Method::POST, action).form(fields)).await
    }

    pub async fn sign_in(&mut self, email: &str) -> Answer {
        let page = self.get("/login/").await;
        self.submit(&page, "/login/", &[("email", email), ("password", PASSWORD)]).await
    }
}
