//! Who may import whom: a module uses `crate::X` only where `X` stands above it in `src/lib.rs`. So there are no
//! circles, and the list of modules reads as the map of the house, bottom first.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

#[test]
fn every_module_imports_only_what_stands_above_it_in_lib_rs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = modules(&fs::read_to_string(src.join("lib.rs")).unwrap());
    assert!(modules.len() > 10, "src/lib.rs is not read as it should be: {modules:?}");

    let mut faults = Vec::new();
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        // The one is the list itself; the other is another crate, above them all.
        if path != "lib.rs" && path != "main.rs" {
            faults.extend(check(&modules, &path, &fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// What is wrong with the imports of one file (its path is relative to `src`), a sentence each.
fn check(modules: &[String], path: &str, source: &str) -> Vec<String> {
    let module_path = module_path(path);
    let place = |name: &str| modules.iter().position(|module| module == name);
    let Some(own) = place(&module_path[0]) else {
        return vec![format!("src/{path}: src/lib.rs does not list the module `{}`", module_path[0])];
    };
    let fault = |import: Import| {
        let at = format!("src/{path}:{}: `crate::{}`", import.line, import.name);
        match place(&import.name) {
            Some(used) if used <= own => None,
            Some(_) => Some(format!("{at} does not stand above `{}` in src/lib.rs", module_path[0])),
            None => Some(format!("{at} is no module of src/lib.rs")),
        }
    };
    imports(source, module_path.len()).into_iter().filter_map(fault).collect()
}

/// The modules of `lib.rs`, in their order.
fn modules(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    let names = tokens.windows(3).filter_map(|window| match window {
        [Token { text: "mod", .. }, name, Token { text: ";", .. }] => Some(name.text.to_owned()),
        _ => None,
    });
    names.collect()
}

/// `interview/booking.rs` is `[interview, booking]`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap();
    path.strip_suffix("/mod").unwrap_or(path).split('/').map(str::to_owned).collect()
}

/// A use of `crate::name`, however it is written.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    name: String,
    line: usize,
}

/// Every use of a module of the crate in a file that lies `depth` modules deep: `crate::x::y`, `crate::{x, y::z}`,
/// and `super::x` where `super` is the crate.
fn imports(source: &str, depth: usize) -> Vec<Import> {
    let tokens = tokens(source);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let (mut imports, mut open_braces) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            // Whether it opens a module.
            "{" => open_braces.push(at >= 2 && text(at - 2) == "mod"),
            "}" => _ = open_braces.pop(),
            start @ ("crate" | "super") if text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") => {
                let mut up = usize::from(start == "super");
                at += 2;
                while text(at) == "super" && text(at + 1) == "::" {
                    (up, at) = (up + 1, at + 2);
                }
                let inside = depth + open_braces.iter().filter(|is_module| **is_module).count();
                if start == "crate" || up == inside {
                    at = names(&tokens, at, &mut imports);
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    imports
}

/// Notes the first name of a path, or of each path of a group, that begins at `at`; gives where to go on.
fn names(tokens: &[Token], at: usize, imports: &mut Vec<Import>) -> usize {
    let note = |token: &Token| Import { name: token.text.to_owned(), line: token.line };
    if tokens.get(at).is_none_or(|token| token.text != "{") {
        imports.extend(tokens.get(at).map(note));
        return at + 1;
    }
    let (mut depth, mut starts_path) = (0, false);
    for (at, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "self" => {}
            _ if depth == 1 && starts_path => imports.push(note(token)),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
        starts_path = depth == 1 && matches!(token.text, "{" | ",");
    }
    tokens.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.text)
    }
}

/// Words, `::` and single characters; without white space, comments, and the contents of texts.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut line, mut rest) = (Vec::new(), 1, source);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if first.is_whitespace() => first.len_utf8(),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest),
            '\'' => character_or_lifetime(rest),
            _ if let Some(length) = raw_text(rest) => length,
            _ => {
                let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                let length = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
                tokens.push(Token { text: &rest[..length], line });
                length
            }
        };
        let (passed, left) = rest.split_at(length);
        line += passed.matches('\n').count();
        rest = left;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        (depth, at) = (depth + step.0, at + step.1);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a text in quotation marks, `\"` not being its end.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    let end = rest.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 2)
}

/// `'x'` or `'\n'`; only the mark of a lifetime such as `'a`.
fn character_or_lifetime(rest: &str) -> usize {
    let inner = &rest[1..];
    match inner.chars().next() {
        Some('\\') => inner[2..].find('\'').map_or(rest.len(), |end| end + 4),
        Some(c) if inner[c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
        _ => 1,
    }
}

/// The length of a raw text such as `r#"…"#`, if one begins here.
fn raw_text(rest: &str) -> Option<usize> {
    let after = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let inner = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(inner.find(&end).map_or(rest.len(), |at| rest.len() - inner.len() + at + end.len()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => files.extend(rust_files(&path)),
            Some(extension) if extension == "rs" => files.push(path),
            _ => {}
        }
    }
    files.sort();
    files
}

fn found(source: &str, depth: usize) -> Vec<(String, usize)> {
    imports(source, depth).into_iter().map(|import| (import.name, import.line)).collect()
}

#[test]
fn imports_are_found_however_they_are_written() {
    let source = "
use crate::clock;
use crate::{
    auth::{self, CurrentUser},
    db, zone::Zone as Z,
};
pub(crate) use crate::config::Settings;
fn f() -> crate::http::Result<()> { $crate::mail::send(::serde::de, x::crate_like, r#type) }
";
    let expected = [("clock", 2), ("auth", 4), ("db", 5), ("zone", 5), ("config", 7), ("http", 8), ("mail", 8)];
    assert_eq!(found(source, 1), expected.map(|(name, line)| (name.to_owned(), line)));
}

#[test]
fn comments_and_texts_are_no_imports() {
    let source = r####"
//! See crate::one. /* Not the start of anything.
/* crate::two /* crate::three */ crate::four */
/// [`crate::five`]
const TEXT: [&str; 4] = ["crate::six \" crate::seven", r#"crate::eight " crate::nine"#, "\\", r"\"];
const MARKS: [char; 3] = ['"', '\'', 'x'];
fn f<'a>(x: &'a str) -> char { '\u{22}' }
use crate::real;
"####;
    assert_eq!(found(source, 1), [("real".to_owned(), 8)]);
}

#[test]
fn super_counts_where_it_is_the_crate() {
    let source = "
use super::above;
mod tests {
    use super::own;
    use super::super::{other, super_like::x};
    fn f() { if true { super::super::third::g() } }
}
use super::last;
";
    let expected = [("above", 2), ("other", 5), ("super_like", 5), ("third", 6), ("last", 8)];
    assert_eq!(found(source, 1), expected.map(|(name, line)| (name.to_owned(), line)));
    assert_eq!(found("use super::sibling; use super::super::root;", 2), [("root".to_owned(), 1)]);
}

#[test]
fn an_import_from_below_is_named_with_file_line_and_module() {
    let modules = modules("//! mod not;\npub mod clock;\nmod db;\n#[cfg(x)]\npub mod app;\nmod inline { }");
    assert_eq!(modules, ["clock", "db", "app"]);
    let check = |path, source| check(&modules, path, source);

    assert_eq!(check("db.rs", "use crate::clock::Clock;\nuse crate::db::own;"), [""; 0]);
    assert_eq!(
        check("db.rs", "use crate::{\n    clock,\n    app::serve,\n};"),
        ["src/db.rs:3: `crate::app` does not stand above `db` in src/lib.rs"]
    );
    assert_eq!(
        check("db/deep/er.rs", "fn f() { crate::app::g() }"),
        ["src/db/deep/er.rs:1: `crate::app` does not stand above `db` in src/lib.rs"]
    );
    assert_eq!(check("app/mod.rs", "use crate::Db;"), ["src/app/mod.rs:1: `crate::Db` is no module of src/lib.rs"]);
    assert_eq!(check("new.rs", ""), ["src/new.rs: src/lib.rs does not list the module `new`"]);
}
