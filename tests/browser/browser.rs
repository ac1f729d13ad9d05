//! A browser as a person has it: Chromium, driven over WebDriver by a chromedriver of its own.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::Engine as _;
use serde_json::{Value, json};
use thirtyfour::{prelude::*, session::scriptret::ScriptRet};

use crate::support::{PASSWORD, TestApp, until_async};

/// What a visitor's browser is like.
#[derive(Clone, Copy)]
pub struct Profile {
    pub javascript: bool,
    /// Whether pages may use microphone and camera, which are made up.
    pub devices: bool,
    /// Whether pages may keep cookies and what tabs store.
    pub storage: bool,
    pub timezone: &'static str,
}

impl Default for Profile {
    fn default() -> Self {
        Profile { javascript: true, devices: true, storage: true, timezone: "Europe/Berlin" }
    }
}

/// One window of a fresh profile, which can reach nothing but this machine. Dropping it ends Chromium and its driver.
pub struct Browser {
    window: Option<WebDriver>,
    _driver: Driver,
    url: String,
}

/// A chromedriver on a port of its own, and the Chromium that it starts. They live as long as the pipe to their shell,
/// whose end kills the whole group: they survive neither this nor a test process that is killed.
struct Driver {
    shell: Child,
    url: String,
    /// Where profiles are.
    folder: PathBuf,
}

impl Driver {
    /// `None` where there is none. One that does not start, as when another takes its port first, is started again.
    fn start() -> Option<Driver> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let script = "command -v chromium >/dev/null && command -v chromedriver >/dev/null || { echo absent; exit; }
                      chromedriver --port=0 & exec >&-; read _; kill -KILL 0";
        for _ in 0..10 {
            let name = format!("interviews-browser-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("TMPDIR", &folder).env("HOME", &folder).process_group(0);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut driver = Driver { shell: command.spawn().unwrap(), url: String::new(), folder };
            for line in BufReader::new(driver.shell.stdout.take().unwrap()).lines().map_while(Result::ok) {
                if line == "absent" {
                    return None;
                }
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    driver.url = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
                    return Some(driver);
                }
            }
        }
        panic!("chromedriver does not start");
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        _ = self.shell.wait();
        _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It need not close by itself: the driver's end is its own.
        _ = self.window.take().map(WebDriver::leak);
    }
}

impl Browser {
    /// `None` where Chromium is not installed, which is said, and allowed but in CI.
    pub async fn start(app: &TestApp) -> Option<Browser> {
        Browser::of(app, Profile::default()).await
    }

    /// The same with a profile.
    pub async fn of(app: &TestApp, profile: Profile) -> Option<Browser> {
        let Some(driver) = Driver::start() else {
            assert!(std::env::var_os("CI").is_none(), "CI must install Chromium and its driver");
            // Not `println!`, which is shown with failures alone.
            _ = writeln!(
                std::io::stderr(),
                "NOT RUN: chromium and chromedriver are not here (Debian: chromium, chromium-driver)"
            );
            return None;
        };
        let mut chromium = DesiredCapabilities::chrome();
        for argument in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--lang=en-US",
            "--window-size=1280,900",
            "--use-fake-device-for-media-stream",
            // Whatever page wants to lead elsewhere, it is not asked for.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ] {
            chromium.add_arg(argument).unwrap();
        }
        let allowed = |yes: bool| if yes { 1 } else { 2 };
        let settings = json!({
            "profile.managed_default_content_settings.javascript": allowed(profile.javascript),
            "profile.managed_default_content_settings.cookies": allowed(profile.storage),
            "profile.default_content_setting_values.media_stream_mic": allowed(profile.devices),
            "profile.default_content_setting_values.media_stream_camera": allowed(profile.devices),
        });
        chromium.add_experimental_option("prefs", settings).unwrap();
        chromium.set("goog:loggingPrefs", json!({"browser": "ALL"})).unwrap();
        let window = WebDriver::new(&driver.url, chromium).await.unwrap();
        let browser = Browser { window: Some(window), _driver: driver, url: app.url.clone() };
        browser.window().cdp().emulation().set_timezone_override(profile.timezone).await.unwrap();
        Some(browser)
    }

    /// What opens for somebody who follows the link that he was mailed last, in a browser that knows nothing of him.
    pub async fn of_mailed(app: &TestApp, to: &str, profile: Profile) -> Option<Browser> {
        let link = app.mailed_link(to).await;
        let browser = Browser::of(app, profile).await?;
        browser.open(&link).await;
        Some(browser)
    }

    fn window(&self) -> &WebDriver {
        self.window.as_ref().unwrap()
    }

    /// Tells Chromium something that pages cannot (the DevTools protocol).
    pub async fn tell(&self, method: &str, parameters: Value) -> Value {
        self.window().cdp().send_raw(method, parameters).await.unwrap()
    }

    /// Opens a page; `path` may be a whole URL.
    pub async fn open(&self, path: &str) {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        self.window().goto(url).await.unwrap();
    }

    /// Where the window is, or wants to be: this server's paths begin with `/`.
    pub async fn address(&self) -> String {
        let url = self.window().current_url().await.unwrap().to_string();
        url.strip_prefix(&self.url).map(str::to_owned).unwrap_or(url)
    }

    /// The text that can be seen; none between two pages.
    pub async fn text(&self) -> String {
        let text = self.window().execute("return document.body.innerText", Vec::new()).await;
        text.ok().and_then(|text| text.convert().ok()).unwrap_or_default()
    }

    /// Fails unless this can be seen, now or in a moment.
    pub async fn sees(&self, words: &str) {
        self.sees_that(words, async || self.text().await.contains(words)).await;
    }

    /// Fails unless the window is where this begins, or wants to be there, now or in a moment.
    pub async fn is_at(&self, beginning: &str) {
        self.sees_that(beginning, async || self.address().await.starts_with(beginning)).await;
    }

    /// Fails, saying what was expected, unless it is so now or in a moment.
    pub async fn sees_that(&self, what: &str, so: impl AsyncFnMut() -> bool) {
        if tokio::time::timeout(PATIENCE, until_async(so)).await.is_err() {
            panic!("{what:?} is not to be seen on {}:\n{}", self.address().await, self.text().await);
        }
    }

    /// The one element of this selector that is shown, now or in a moment.
    async fn find(&self, by: By) -> WebElement {
        let mut shown = Vec::new();
        self.sees_that(&format!("one {by:?}"), async || {
            shown = self.find_all(by.clone()).await;
            shown.len() == 1
        })
        .await;
        shown.remove(0)
    }

    async fn find_all(&self, by: By) -> Vec<WebElement> {
        let mut shown = Vec::new();
        for element in self.window().find_all(by).await.unwrap_or_default() {
            if element.is_displayed().await.unwrap_or_default() {
                shown.push(element);
            }
        }
        shown
    }

    /// The one element of this CSS selector.
    pub async fn element(&self, css: &str) -> WebElement {
        self.find(By::Css(css)).await
    }

    /// Whether there is a button or link of these words.
    pub async fn has_button(&self, words: &str) -> bool {
        !self.find_all(of_words(words)).await.is_empty()
    }

    /// The one button or link of these words.
    pub async fn button(&self, words: &str) -> WebElement {
        self.find(of_words(words)).await
    }

    /// Presses it and waits for the page that follows, if one does.
    pub async fn press(&self, words: &str) {
        self.button(words).await.click().await.unwrap();
    }

    /// The field of this label.
    pub async fn field(&self, label: &str) -> WebElement {
        let label = format!("//label[normalize-space()='{label}']");
        self.find(By::XPath(format!("//*[@id={label}/@for] | {label}/input"))).await
    }

    /// Types into the field of this label, instead of what it has. Dates are typed as `02012030`, times as `0200PM`.
    pub async fn fill(&self, label: &str, text: &str) {
        let field = self.field(label).await;
        if !["date", "time"].contains(&field.attr("type").await.unwrap().unwrap_or_default().as_str()) {
            field.clear().await.unwrap();
        }
        field.send_keys(text).await.unwrap();
    }

    /// Chooses in the list of this label the option that begins so.
    pub async fn choose(&self, label: &str, option: &str) {
        let list = self.field(label).await;
        list.find(By::XPath(format!("option[starts-with(., '{option}')]"))).await.unwrap().click().await.unwrap();
    }

    /// Types into whatever has the focus.
    pub async fn keys(&self, keys: impl Into<String>) {
        self.window().action_chain().send_keys(keys.into()).perform().await.unwrap();
    }

    /// Presses twice, as fast as a mouse can.
    pub async fn double_click(&self, words: &str) {
        let button = self.button(words).await;
        self.window().action_chain().double_click_element(&button).perform().await.unwrap();
    }

    /// Closes what has opened beside this window, and comes back to it; gives how many there were.
    pub async fn close_other_windows(&self) -> usize {
        let window = self.window();
        let here = window.window().await.unwrap();
        let mut others = Vec::new();
        self.sees_that("another window", async || {
            others = window.windows().await.unwrap();
            others.retain(|other| *other != here);
            !others.is_empty()
        })
        .await;
        for other in &others {
            window.switch_to_window(other.clone()).await.unwrap();
            window.close_window().await.unwrap();
        }
        window.switch_to_window(here).await.unwrap();
        others.len()
    }

    /// Runs a script, which the page's own policy does not concern, and gives what it returns or promises.
    pub async fn run(&self, script: &str) -> Value {
        self.window().execute(script, Vec::new()).await.map(|answer: ScriptRet| answer.json().clone()).unwrap()
    }

    /// Runs a script that leads to another page, and waits for that.
    pub async fn leave(&self, script: &str) {
        self.run(&format!("window.isOld = true; {script}")).await;
        self.sees_that("another page", async || {
            let is_old = self.window().execute("return window.isOld === true", Vec::new()).await;
            is_old.is_ok_and(|is_old| *is_old.json() == false)
        })
        .await;
    }

    /// What the browser has complained of since this was asked last, but for answers that are errors.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.window().browser_log().await.unwrap();
        let said = log.into_iter().map(|entry| entry.message);
        said.filter(|message| !message.contains("Failed to load resource: the server responded with")).collect()
    }

    /// How the reader's screen is: its width in pixels, and whether it is dark.
    pub async fn screen(&self, width: u32, dark: bool) {
        let emulation = self.window().cdp();
        emulation.emulation().set_device_metrics_override(width, 800, 1.0, width < 600).await.unwrap();
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.tell("Emulation.setEmulatedMedia", json!({"features": [scheme]})).await;
    }

    /// The whole page as a PNG.
    pub async fn picture(&self) -> Vec<u8> {
        let picture = self.tell("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await;
        base64::engine::general_purpose::STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// Signs in on the sign-in page, where the window may be already.
    pub async fn sign_in(&self, email: &str) {
        if !self.address().await.starts_with("/login/") {
            self.open("/login/").await;
        }
        self.fill("Email address", email).await;
        self.fill("Password", PASSWORD).await;
        self.press("Sign in").await;
        self.sees_that("another page", async || !self.address().await.starts_with("/login/")).await;
    }

    /// The cookies of this server.
    pub async fn cookies(&self) -> HashMap<String, String> {
        let cookies = self.window().get_all_cookies().await.unwrap();
        cookies.into_iter().map(|cookie| (cookie.name, cookie.value)).collect()
    }
}

/// How long something may take to be seen: the machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(40);

/// Buttons and links.
fn of_words(words: &str) -> By {
    By::XPath(format!("//*[self::a or self::button][normalize-space()='{words}']"))
}
