//! A page as a browser reads it, by the parser of one.

use scraper::{ElementRef, Html, Selector};

use super::Answer;

/// A whole page.
pub struct Page {
    document: Html,
}

#[derive(Clone, Copy)]
pub struct Element<'a>(ElementRef<'a>);

impl Page {
    /// Fails unless it is well-formed, and runs and loads nothing but our own files.
    #[track_caller]
    pub fn of(answer: &Answer) -> Page {
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{answer:?}");
        let page = Page { document: Html::parse_document(&answer.text) };
        assert!(page.document.errors.is_empty(), "{:?} in {}", page.document.errors, answer.text);
        for script in page.all("script") {
            let is_ours = script.attribute("src").is_some_and(|src| src.starts_with("/interviews/static/"));
            assert!(is_ours && script.text().is_empty(), "{}", script.html());
        }
        for Element(element) in page.all("*") {
            let foreign = element.value().attrs().find(|(name, _)| name.starts_with("on") || *name == "style");
            assert_eq!(foreign, None, "{}", element.html());
        }
        for element in page.all("img, iframe, object, embed, base, style, meta[http-equiv]") {
            let is_logo = element.attribute("src").is_some_and(|src| src.starts_with("/interviews/static/logo?"));
            assert!(is_logo, "{}", element.html());
        }
        page
    }

    pub fn all(&self, selector: &str) -> Vec<Element<'_>> {
        self.document.select(&Selector::parse(selector).unwrap()).map(Element).collect()
    }

    /// The first of these elements.
    #[track_caller]
    pub fn one(&self, selector: &str) -> Element<'_> {
        Element(self.document.root_element()).one(selector)
    }

    pub fn text(&self) -> String {
        Element(self.document.root_element()).text()
    }

    /// What the forms of this page carry against those of other sites.
    #[track_caller]
    pub fn form_token(&self) -> &str {
        self.one("input[name=form_token]").attribute("value").unwrap()
    }

    /// What the page says beside a field that was refused.
    #[track_caller]
    pub fn error_of(&self, field: &str) -> String {
        let field = self.one(&format!("[name={field}]"));
        assert_eq!(field.attribute("aria-invalid"), Some("true"));
        let described = field.attribute("aria-describedby").unwrap();
        let error = described.split(' ').find(|id| id.ends_with("-error")).unwrap();
        self.one(&format!("#{error}")).text()
    }
}

impl<'a> Element<'a> {
    pub fn all(&self, selector: &str) -> Vec<Element<'a>> {
        self.0.select(&Selector::parse(selector).unwrap()).map(Element).collect()
    }

    #[track_caller]
    pub fn one(&self, selector: &str) -> Element<'a> {
        *self.all(selector).first().unwrap_or_else(|| panic!("no {selector} in {}", self.html()))
    }

    /// Without what is only white space between words.
    pub fn text(&self) -> String {
        self.raw_text().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// As it stands.
    pub fn raw_text(&self) -> String {
        self.0.text().collect()
    }

    /// Itself, as HTML of one spelling.
    pub fn html(&self) -> String {
        self.0.html()
    }

    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.0.attr(name)
    }
}
