//! What holds for all pages of a recruiter: whose forms and interviews they take, what they cost, what texts they bear.

use crate::{
    schedule::{SCHEDULE, with},
    support::{cookie_client::CookieClient, page::Page, *},
};

/// Where each form of the recruiter's pages is sent to.
const FORMS: [&str; 6] = [
    "/dashboard/google/connect/",
    "/dashboard/google/disconnect/",
    "/dashboard/mails/00000000-0000-0000-0000-000000000001/resend/",
    "/dashboard/schedule/",
    "/dashboard/interviews/502/change/",
    "/dashboard/interviews/502/cancel/",
];

#[tokio::test]
async fn forms_of_other_sites_and_of_other_sessions_change_nothing() {
    let app = TestApp::start().await;
    app.connected(OTTO).await;
    let grants = app.count("company_googlecredentials").await;
    app.execute(
        "INSERT INTO ivs_mail (id, kind, interview_id, user_id, sequence, state, created_at)
         VALUES ('00000000-0000-0000-0000-000000000001', 'scheduled', 502, 201, 0, 'refused', now())",
    )
    .await;
    let (row, states) = (app.row(502).await, app.count("company_oauthstate").await);
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let mut elsewhere = CookieClient::of(&app, "otto@x.test").await;
    let page = elsewhere.get("/dashboard/").await;
    let others = Page::of(&page).form_token().to_owned();
    let mut fields = with(&[("job_id", "22"), ("key", "k"), ("reason", "r")]);
    for path in FORMS {
        for token in ["", "made-up", &others] {
            fields.push(("form_token", token));
            let refused = otto.post(path, &fields).await;
            assert_eq!(refused.status, 403, "{path} {token}");
            assert!(Page::of(&refused).text().contains("Nothing was changed"), "{path}");
            fields.pop();
        }
        assert_eq!(otto.post(path, &fields).await.status, 403, "{path} without a token");
        let nobody = CookieClient::new(&app).post(path, &fields).await;
        assert_eq!(nobody.status, 401, "{path}");
        let shown = Page::of(&nobody);
        assert_eq!(shown.one("main a").attribute("href"), Some("/login/?next=/dashboard/"), "{path}");
        assert_eq!(shown.one("#typed").raw_text(), "one\ntwo", "what was written is not lost: {path}");
    }
    assert_eq!(app.row(502).await, row);
    let after = [
        app.count("company_googlecredentials").await,
        app.count("company_oauthstate").await,
        app.count("ivs_mail WHERE state = 'refused'").await,
        app.count("company_interview").await,
    ];
    assert_eq!(after, [grants, states, 1, 3]);
    app.run_jobs().await;
}

#[tokio::test]
async fn interviews_and_jobs_of_other_recruiters_do_not_exist() {
    let app = TestApp::start().await;
    let mut rita = CookieClient::of(&app, "rita@x.test").await;
    let page = rita.get("/dashboard/").await;
    let token = Page::of(&page).form_token().to_owned();
    let fields = with(&[("form_token", &token), ("job_id", "22"), ("key", "k")]);
    for id in ["502", "503", "999", "99999999999999999999"] {
        for verb in ["change", "cancel"] {
            let path = format!("/dashboard/interviews/{id}/{verb}/");
            assert_eq!(rita.get(&path).await.status, 404, "{path}");
            assert_eq!(rita.post(&path, &fields).await.status, 404, "{path}");
        }
    }
    for job in ["22", "999", "x", "99999999999999999999"] {
        assert_eq!(rita.get(&format!("{SCHEDULE}?job={job}")).await.status, 404, "{job}");
    }
    assert_eq!(rita.post(SCHEDULE, &fields).await.status, 404);
    // Neither do candidates, or recruiters without a company, schedule.
    for (email, home) in [("carl@x.test", "/dashboard/jobseeker/"), ("nora@x.test", "/dashboard/")] {
        let mut browser = CookieClient::of(&app, email).await;
        let page = browser.get(home).await;
        let token = Page::of(&page).form_token().to_owned();
        assert_eq!(browser.get(SCHEDULE).await.header("location"), Some("/dashboard/"));
        let sent = browser.post(SCHEDULE, &with(&[("form_token", &token), ("job_id", "21"), ("key", "k")])).await;
        assert_eq!(sent.header("location"), Some("/dashboard/"), "{email}");
    }
    assert_eq!(app.count("company_interview").await, 3);
}

#[tokio::test]
async fn each_page_to_schedule_or_change_takes_one_query_besides_the_session() {
    let app = TestApp::start().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    for path in [
        SCHEDULE,
        "/dashboard/schedule/?job=22",
        "/dashboard/interviews/502/change/",
        "/dashboard/interviews/502/cancel/",
    ] {
        let (page, statements) = counting_statements(otto.get(path)).await;
        assert_eq!((page.status.as_u16(), statements), (200, 2), "{path}");
    }
}

/// What people may be called, and write.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "<script>alert(1)</script>",
        "</textarea></option></select></title><script src=//evil.test></script>",
        "\"><img src=x onerror=alert(1)>",
        "' onfocus='alert(1)' autofocus='",
        "&lt;b&gt; &amp;amp; <b>&quot;\"",
        "\u{202e}txet desrever\u{202c} \u{200f}שלום \u{2067}x",
        "-->]]>{{ 7*7 }}{% raw %}${x}`",
    ]
    .map(String::from)
    .into();
    texts.push("ü".repeat(255));
    texts.push("<".repeat(255));
    texts.push(format!("{}\"", "W".repeat(254)));
    texts
}

#[tokio::test]
async fn hostile_texts_are_text_on_every_page() {
    let app = TestApp::start().await;
    let mut otto = CookieClient::of(&app, "otto@x.test").await;
    let texts = hostile();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    // A hundred rounds: each text as the name beside each as the title; the others differ from round to round, too.
    assert_eq!(texts.len(), 10);
    for (first, second) in (0..10).flat_map(|first| (0..10).map(move |second| (first, second))) {
        let text = |number: usize| texts[number % 10].as_str();
        // Django's limits.
        let short = |text: &str, most| text.chars().take(most).collect::<String>();
        let (name, job, company) = (short(text(first), 50), short(text(second), 100), short(text(first + second), 100));
        let (title, note, place, reason) =
            (text(second), text(first + 2 * second), text(first + 3 * second), text(second + 1));
        for (sql, values) in [
            ("UPDATE users_user SET first_name = $1, last_name = '' WHERE id IN (201, 102)", vec![&*name]),
            ("UPDATE company_company SET name = $1", vec![&company]),
            ("UPDATE job_job SET title = $1", vec![&job]),
            (
                "UPDATE company_interview SET job_title = $1, note = $2, location = $3 WHERE id = 502",
                vec![title, note, place],
            ),
        ] {
            let statement =
                values.into_iter().fold(sqlx::query(sql), |statement, value| statement.bind(value.to_owned()));
            statement.execute(app.db()).await.unwrap();
        }

        let page = Page::of(&otto.get("/dashboard/").await);
        assert_eq!(page.one("article h3").text(), words(title));
        let isolated: Vec<_> = page.all("article bdi").iter().map(|bdi| bdi.text()).collect();
        assert_eq!(isolated, [words(&name), words(&company), words(place)]);
        let page = Page::of(&otto.get(SCHEDULE).await);
        assert_eq!(page.one("main li bdi").text(), words(&job));
        let form = otto.get("/dashboard/schedule/?job=22").await;
        let page = Page::of(&form);
        assert_eq!(page.one("h1 + p bdi").text(), words(&job));
        assert!(page.all("#candidate_id option")[1].text().starts_with(&words(&name)));
        let page = Page::of(&otto.get("/dashboard/interviews/502/change/").await);
        assert_eq!((page.one("h1 bdi").text(), page.one("#note").raw_text()), (words(&name), note.to_owned()));
        assert_eq!(page.one("#location").attribute("value"), Some(place));
        let cancel = "/dashboard/interviews/502/cancel/";
        let cancelling = otto.get(cancel).await;
        let page = Page::of(&cancelling);
        assert_eq!((page.one("h1 bdi").text(), page.one("h1 + p bdi").text()), (words(&name), words(title)));
        // What was typed comes back as it was.
        let typed = [("timezone", title), ("date", reason), ("location", place), ("note", note)];
        let page = Page::of(&otto.submit(&form, SCHEDULE, &with(&typed)).await);
        for (field, typed) in [("#timezone", title), ("#date", reason), ("#location", place)] {
            assert_eq!(page.one(field).attribute("value"), Some(typed));
        }
        assert_eq!(page.one("#note").raw_text(), note);
        let reason = format!("{reason}{}", "x".repeat(1000));
        let page = Page::of(&otto.submit(&cancelling, cancel, &[("reason", &reason)]).await);
        assert_eq!(page.one("#reason").raw_text(), reason);
    }
}
