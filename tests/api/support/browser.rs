//! A person's browser on the portal's pages.

use reqwest::{Method, RequestBuilder};

use super::{Answer, PASSWORD, TestApp, send};

/// A browser: it keeps cookies and sends the hidden fields of forms.
pub struct Browser<'a> {
    app: &'a TestApp,
    pub cookies: Vec<(String, String)>,
}

impl<'a> Browser<'a> {
    pub fn new(app: &'a TestApp) -> Self {
        Browser { app, cookies: Vec::new() }
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
        let form = page.text.split("<form ").find(|form| form.contains(&format!("action=\"{action}\""))).expect(action);
        let form = form.split("</form>").next().unwrap();
        let hidden = form.split("<input type=\"hidden\" ").skip(1).map(|input| {
            let part =
                |name: &str| input.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
            (part("name"), part("value"))
        });
        let mut form: Vec<(String, String)> = hidden.collect();
        form.extend(fields.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        self.send(self.request(Method::POST, action).form(&form)).await
    }

    /// Somebody of the fixture, signed in.
    pub async fn of(app: &'a TestApp, email: &str) -> Self {
        let mut browser = Browser::new(app);
        let answer = browser.sign_in(email).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        browser
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
