//! The server's own SQL for pgbench, out of the `.sqlx` cache: a query that was changed is measured as it is now, and
//! one that is gone ends the run.

use std::{fs, path::Path};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// Who calls, by the number in his token.
pub fn caller() -> anyhow::Result<String> {
    cached(&["FROM users_user u LEFT JOIN company_company c", "WHERE u.id = $1"], 1)
}

/// A recruiter's connection to Google.
pub fn grant() -> anyhow::Result<String> {
    cached(&["SELECT credentials_json::text FROM", "FROM ivs_dead_grant"], 1)
}

/// The one query of the cache that has all `pieces`, and so many parameters.
pub fn cached(pieces: &[&str], parameters: usize) -> anyhow::Result<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx"))? {
        let cached: Value = serde_json::from_slice(&fs::read(entry?.path())?)?;
        let query = cached["query"].as_str().context("a file of .sqlx holds no query")?;
        if pieces.iter().all(|piece| query.contains(piece)) {
            let has = cached["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
            ensure!(has == parameters, "another number of parameters than the benchmark knows: {query}");
            found.push(query.to_owned());
        }
    }
    match <[String; 1]>::try_from(found) {
        Ok([query]) => Ok(query),
        Err(found) => bail!("{} queries of .sqlx have {pieces:?}, not one", found.len()),
    }
}

/// A query for pgbench: its parameters are these variables, in order.
pub fn for_pgbench(query: &str, variables: &[&str]) -> anyhow::Result<String> {
    let named =
        variables.iter().enumerate().rev().fold(query.to_owned(), |sql, (at, variable)| {
            sql.replace(&format!("${}", at + 1), &format!(":{variable}"))
        });
    // A comment would swallow what follows it: pgbench is given one line.
    ensure!(!named.contains("--"), "a query with a comment: {query}");
    Ok(format!("{};", named.split_whitespace().collect::<Vec<_>>().join(" ")))
}
