//! Signing in on the portal's own page: the session it makes, what that opens, and what it does not.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{cookie_client::CookieClient, *};

fn session_cookie(answer: &Answer) -> Option<&str> {
    let mut cookies = answer.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
    cookies.find(|cookie| cookie.starts_with("umemployed_portal="))
}

#[tokio::test]
async fn signing_in_makes_a_session_of_14_days_and_leads_to_ones_own_page() {
    let app = TestApp::start().await;
    for (email, home) in [("rita@x.test", "/dashboard/"), ("carl@x.test", "/dashboard/jobseeker/")] {
        let mut browser = CookieClient::new(&app);
        assert_eq!(browser.get("/").await.header("location"), Some("/login/"));
        let answer = browser.sign_in(email).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some(home)));
        let cookie = session_cookie(&answer).unwrap();
        let attributes = cookie.split_once(';').unwrap().1;
        assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax; Max-Age=1209600");
        assert_eq!(browser.get("/").await.header("location"), Some(home));
        assert_eq!(browser.get("/login/").await.header("location"), Some(home));
        app.advance(Duration::from_secs(14 * 24 * 3600 - 1));
        assert_eq!(browser.get("/").await.header("location"), Some(home));
        app.advance(Duration::from_secs(1));
        assert_eq!(browser.get("/").await.header("location"), Some("/login/"));
    }
    app.sweep().await;
    assert_eq!(app.count("ivs_portal_session").await, 0);
}

#[tokio::test]
async fn a_browser_in_which_somebody_has_signed_in_is_known_for_long_and_does_not_say_who_it_was() {
    for (public_url, name, secure) in
        [("http://p.test", "umemployed_known", ""), ("https://p.test", "__Host-umemployed_known", "; Secure")]
    {
        let app = TestApp::start_with(&[("PUBLIC_URL", public_url)]).await;
        let known = |answer: &Answer| {
            let mut cookies = answer.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
            cookies.find_map(|cookie| cookie.strip_prefix(name)?.strip_prefix('=')?.split_once(';')).map(
                |(value, attributes)| {
                    assert_eq!(attributes, format!(" Path=/; HttpOnly; SameSite=Lax; Max-Age=34560000{secure}"));
                    value.to_owned()
                },
            )
        };
        let mut browser = CookieClient::new(&app);
        let page = browser.get("/login/").await;
        let fields = |email, password| [("email", email), ("password", password)];
        let refused = browser.submit(&page, "/login/", &fields("rita@x.test", "wrong")).await;
        assert_eq!((refused.status.as_u16(), known(&page), known(&refused)), (400, None, None));
        let ritas = known(&browser.submit(&page, "/login/", &fields("rita@x.test", PASSWORD)).await).unwrap();
        let ottos = known(&CookieClient::new(&app).sign_in("otto@x.test").await).unwrap();
        let again = known(&CookieClient::new(&app).sign_in("rita@x.test").await).unwrap();
        assert!(ritas != ottos && ritas == again, "many sign-ins to one account make one browser");
        // It opens nothing, and outlasts the session.
        browser.cookies.retain(|(found, _)| found == name);
        assert_eq!(browser.get("/").await.header("location"), Some("/login/"));
    }
}

#[tokio::test]
async fn where_there_is_tls_no_other_host_can_set_the_sessions_cookie() {
    let app = TestApp::start_with(&[("PUBLIC_URL", "https://interviews.test")]).await;
    let mut browser = CookieClient::new(&app);
    let answer = browser.sign_in("rita@x.test").await;
    let cookies: Vec<&str> =
        answer.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert!(cookies.iter().all(|cookie| cookie.starts_with("__Host-")), "{cookies:?}");
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("__Host-umemployed_portal=")).unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=1209600; Secure"), "{cookie}");
    assert_eq!(browser.get("/").await.header("location"), Some("/dashboard/"));
    // One that some other host of the domain could have set.
    for (name, _) in &mut browser.cookies {
        *name = name.trim_start_matches("__Host-").to_owned();
    }
    assert_eq!(browser.get("/").await.header("location"), Some("/login/"));
}

#[tokio::test]
async fn two_values_of_a_cookie_count_as_none() {
    let app = TestApp::start().await;
    let mut browser = CookieClient::of(&app, "rita@x.test").await;
    assert_eq!(browser.get("/").await.header("location"), Some("/dashboard/"));
    let session = browser.cookies.iter().find(|(name, _)| name == "umemployed_portal").unwrap().clone();
    for other in ["planted", "", &session.1.clone()] {
        for first in [true, false] {
            let mut both = vec![session.clone(), (session.0.clone(), other.to_owned())];
            if !first {
                both.reverse();
            }
            browser.cookies = both;
            assert_eq!(browser.get("/").await.header("location"), Some("/login/"), "{other:?} {first}");
        }
    }
    // The visitor's too: with a planted one beside it nobody is signed in.
    let mut visitor = CookieClient::new(&app);
    let page = visitor.get("/login/").await;
    let [(name, _)] = &visitor.cookies[..] else { panic!("{:?}", visitor.cookies) };
    visitor.cookies.push((name.clone(), "planted".to_owned()));
    let answer = visitor.submit(&page, "/login/", &[("email", "rita@x.test"), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_session_ends_when_its_user_is_deactivated_or_deleted_or_has_another_password_and_by_signing_out() {
    let app = TestApp::start().await;
    for change in ["is_active = false", "is_deleted = true", "password = '!'"] {
        let mut browser = CookieClient::of(&app, "rita@x.test").await;
        assert_eq!(browser.get("/").await.header("location"), Some("/dashboard/"));
        let before: String =
            sqlx::query_scalar("SELECT password FROM users_user WHERE id = 101").fetch_one(app.db()).await.unwrap();
        let sql = format!("UPDATE users_user SET {change} WHERE id = 101");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(app.db()).await.unwrap();
        assert_eq!(browser.get("/").await.header("location"), Some("/login/"), "{change}");
        sqlx::query("UPDATE users_user SET is_active = true, is_deleted = false, password = $1 WHERE id = 101")
            .bind(before)
            .execute(app.db())
            .await
            .unwrap();
    }
    let mut browser = CookieClient::of(&app, "carl@x.test").await;
    let copy = browser.cookies.clone();
    let page = browser.get("/interviews/502/join/").await;
    assert_eq!(page.status, 200);
    let answer = browser.submit(&page, "/logout/", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some("/login/")));
    assert!(!browser.cookies.iter().any(|(name, _)| name == "umemployed_portal"));
    browser.cookies = copy;
    assert_eq!(browser.get("/").await.header("location"), Some("/login/"), "a copy of the cookie is worth nothing");
}

#[tokio::test]
async fn signing_in_leads_on_to_own_paths_only() {
    let app = TestApp::start().await;
    for (next, leads) in [
        ("/interviews/501/join/", "/interviews/501/join/"),
        ("/api/company/google/connect/", "/api/company/google/connect/"),
        ("//evil.test/", "/dashboard/"),
        ("https://evil.test/", "/dashboard/"),
        ("/\\evil.test", "/dashboard/"),
    ] {
        let mut browser = CookieClient::new(&app);
        let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish();
        let page = browser.get(&format!("/login/?{query}")).await;
        let fields = [("email", "rita@x.test"), ("password", PASSWORD)];
        let answer = browser.submit(&page, "/login/", &fields).await;
        assert_eq!(answer.header("location"), Some(leads), "{next}");
    }
}

#[tokio::test]
async fn a_refused_sign_in_says_why_keeps_the_address_and_makes_no_session() {
    let app = TestApp::start().await;
    let mut browser = CookieClient::new(&app);
    for (email, password, status, said) in [
        ("rita@x.test", "wrong", 400, "Invalid email or password."),
        ("nobody@x.test", PASSWORD, 400, "Invalid email or password."),
        ("ines@x.test", PASSWORD, 403, "Email not verified."),
        ("", "", 400, "Please enter the e-mail address of your account, and your password."),
    ] {
        let page = browser.get("/login/").await;
        let answer = browser.submit(&page, "/login/", &[("email", email), ("password", password)]).await;
        assert_eq!(answer.status, status);
        assert!(answer.text.contains(said) && answer.text.contains(&format!("value=\"{email}\"")), "{}", answer.text);
        assert!(!answer.text.contains(PASSWORD) && session_cookie(&answer).is_none());
    }
    assert_eq!(app.count("ivs_portal_session").await, 0);
}

#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let app = TestApp::start().await;
    let mut browser = CookieClient::new(&app);
    let fields = [("email", "rita@x.test"), ("password", PASSWORD), ("form_token", "made-up")];
    let foreign = send(browser.request(Method::POST, "/login/").form(&fields)).await;
    assert_eq!((foreign.status.as_u16(), session_cookie(&foreign)), (403, None));
    // Nor does the token of another browser help.
    let other = CookieClient::new(&app).get("/login/").await;
    browser.get("/login/").await;
    let answer = browser.submit(&other, "/login/", &[("email", "rita@x.test"), ("password", PASSWORD)]).await;
    assert_eq!((answer.status.as_u16(), session_cookie(&answer)), (403, None));
    app.set_now("2030-01-16T00:30:00Z");
    let mut browser = CookieClient::of(&app, "carl@x.test").await;
    for path in ["/logout/", "/interviews/502/join/", "/interviews/502/left/"] {
        let answer = send(browser.request(Method::POST, path).form(&[("form_token", "made-up")])).await;
        assert_eq!(answer.status, 403, "{path}");
    }
    assert_eq!(browser.get("/").await.header("location"), Some("/dashboard/jobseeker/"));
    assert_eq!(app.count("ivs_presence").await, 0);
}

#[tokio::test]
async fn a_session_opens_the_rooms_of_its_user_and_of_nobody_else() {
    let app = TestApp::start().await;
    app.set_now("2030-01-16T00:30:00Z");
    let mut carl = CookieClient::of(&app, "carl@x.test").await;
    let page = carl.get("/interviews/502/join/").await;
    assert!(page.status == 200 && page.text.contains("Otto Other"), "{page:?}");
    let answer = carl.submit(&page, "/interviews/502/join/", &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, Some("/interviews/502/join/")));
    assert_eq!(app.count("ivs_presence").await, 1);
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    assert_eq!(rita.get("/interviews/502/join/").await.status, 403);
    assert_eq!(rita.get("/interviews/999/join/").await.status, 404);
    assert_eq!(CookieClient::new(&app).get("/interviews/502/join/").await.status, 401);
}

#[tokio::test]
async fn a_session_leads_a_navigation_to_google_and_never_opens_the_json_api() {
    const CONNECT: &str = "/api/company/google/connect/";
    let app = TestApp::start().await;
    let mut browser = CookieClient::new(&app);
    let nobody = browser.get(CONNECT).await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.header("location")),
        (302, Some("/login/?next=/api/company/google/connect/"))
    );
    let mut browser = CookieClient::of(&app, "rita@x.test").await;
    let answer = browser.get(CONNECT).await;
    assert_eq!(answer.status, 302);
    assert!(answer.header("location").unwrap().starts_with(&app.ctx.settings.google_auth_uri));
    let call = browser.request(Method::GET, CONNECT).header("accept", "*/*");
    let cookie = call.build().unwrap().headers()["cookie"].clone();
    let call = app.request(Method::GET, CONNECT).header("accept", "*/*").header("cookie", &cookie);
    assert_eq!(send(call).await.status, 401);
    for path in ["/api/users/profile/", "/api/company/interviews/"] {
        assert_eq!(browser.get(path).await.status, 401, "{path}");
    }
    let bad = browser.request(Method::GET, CONNECT).bearer_auth("undefined");
    assert_eq!(send(bad).await.status, 401, "a bad header is worse than none");
    let posted = browser.request(Method::POST, CONNECT);
    assert_eq!(send(posted).await.status, 401);
}

#[tokio::test]
async fn errors_are_pages_for_people_and_json_for_clients() {
    let app = TestApp::start().await;
    let mut browser = CookieClient::new(&app);
    let page = browser.get("/nope/").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(page.text.contains("<h1>This page does not exist</h1>"), "{}", page.text);
    app.get("/nope/").await.assert(404, json!({"detail": "Not found."}));
    let api = browser.get("/api/nope/").await;
    assert_eq!(api.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn what_goes_wrong_with_a_posted_form_is_a_page_and_with_a_clients_call_json() {
    let app = TestApp::start().await;
    let mut browser = CookieClient::of(&app, "rita@x.test").await;
    let dashboard = browser.get("/dashboard/").await;
    let form_token = dashboard.text.split("name=\"form_token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let long = "x".repeat(1 << 20);
    let gone = "/dashboard/interviews/999/cancel/";
    for (path, reason, status, detail) in [
        (gone, "", 404, "Not found."),
        (gone, &*long, 413, "Request body too large."),
        ("/nope/", "", 404, "Not found."),
    ] {
        let fields = [("form_token", form_token), ("reason", reason)];
        let page = browser.post(path, &fields).await;
        let kind = (page.status.as_u16(), page.header("content-type"));
        assert_eq!(kind, (status, Some("text/html; charset=utf-8")), "{path}");
        assert!(page.text.contains("<h1>") && !page.text.contains(detail), "{}", page.text);
        let cookie = browser.request(Method::POST, path).build().unwrap().headers()["cookie"].clone();
        let call = || app.request(Method::POST, path).header("cookie", &cookie).form(&fields);
        send(call()).await.assert(status, json!({ "detail": detail }));
        let mode = send(call().header("sec-fetch-mode", "navigate")).await;
        assert_eq!(mode.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
    }
    let api = browser.post("/api/users/login/", &[]).await;
    assert_eq!((api.status.as_u16(), api.header("content-type")), (400, Some("application/json")));
}

#[tokio::test]
async fn where_sign_ins_have_to_pass_recaptcha_the_page_leads_to_the_application() {
    let app = TestApp::start_with(&[("RECAPTCHA_SECRET_KEY", "secret")]).await;
    let mut browser = CookieClient::new(&app);
    let page = browser.get("/login/").await;
    assert_eq!(page.status, 403);
    assert!(page.text.contains("http://localhost:3000") && !page.text.contains("<form"), "{}", page.text);
    let fields = [("email", "rita@x.test"), ("password", PASSWORD)];
    let answer = send(browser.request(Method::POST, "/login/").form(&fields)).await;
    assert_eq!((answer.status.as_u16(), session_cookie(&answer)), (403, None));
}
