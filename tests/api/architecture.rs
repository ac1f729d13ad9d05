//! Who may import whom: a module uses `crate::X` only where `X` stands above it in `src/lib.rs`. So there are no
//! circles, and the list of modules reads as the map of the house, bottom first.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn every_module_imports_only_what_stands_above_it_in_lib_rs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let modules: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let place = |name: &str| modules.iter().position(|module| *module == name);
    let mut faults = Vec::new();
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        // The one is the list itself; the other is another crate, above them all.
        if matches!(path, "lib.rs" | "main.rs") {
            continue;
        }
        let own = place(path.split(['/', '.']).next().unwrap());
        let source = fs::read_to_string(&file).unwrap();
        for name in imports(&program(&source)) {
            if place(&name).is_none_or(|used| Some(used) > own) {
                faults.push(format!("src/{path}: `crate::{name}` does not stand above it in src/lib.rs"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// A file without comments and without the unit tests at its end, which may use what only development has.
fn program(source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].ends_with("mod tests {");
    let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
    lines[..end].iter().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [*line, "\n"]).collect()
}

/// The first name of every `crate::name` and `crate::{name, other::{…}}`.
fn imports(program: &str) -> Vec<String> {
    let word = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for path in program.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            names.push(word(path));
            continue;
        };
        let (mut depth, mut name) = (1, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => names.push(word(&std::mem::take(&mut name))),
                _ => name.push(c),
            }
            if depth == 0 {
                break;
            }
        }
        names.push(word(&name));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A deleted account neither signs in nor gets mail: one predicate in SQL, one function in Rust.
#[test]
fn every_check_that_an_account_is_active_checks_that_it_is_not_deleted() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for file in rust_files(&src) {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        // The columns themselves: where an account is read, written, made up, and looked for by a migration.
        if matches!(&*path, "auth/store.rs" | "auth/sign_in.rs" | "dev/seed.rs" | "db/schema.rs") {
            continue;
        }
        let source = program(&fs::read_to_string(&file).unwrap());
        for (at, _) in source.match_indices("is_active") {
            let before = source[..at].rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap();
            let whole = format!("is_active AND NOT {before}is_deleted");
            if !source[at..].starts_with(&whole) {
                faults.push(format!("src/{path}: {}", source[at..].lines().next().unwrap()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    let program = program(
        "use crate::{\n    a,\n    b::{c, d},\n    e::f,\n};\n// crate::no\nfn g() { crate::h::i(crate::j) }\n#[cfg(test)]\nmod tests {\nuse crate::k;",
    );
    assert_eq!(imports(&program), ["a", "b", "e", "h", "j"]);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] }).collect()
}
