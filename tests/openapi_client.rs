//! The OpenAPI document as public tools read it (npm's packages of `tests/openapi/package.json`): Spectral finds no
//! fault in it, and a TypeScript client that openapi-typescript makes of it compiles. Where the packages are not
//! installed in cargo's target folder (`.ci/node` does so) the test says so and passes, except in CI.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use interviews::app;

#[test]
#[allow(clippy::disallowed_methods, reason = "CI is not a setting of the server")]
fn a_linter_finds_no_fault_and_a_generated_typescript_client_compiles() {
    // Where `.ci/node` installs them.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi");
    let programs = folder.join("node_modules/.bin");
    if !programs.join("spectral").exists() || Command::new("node").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must install npm's packages with .ci/node");
        // Not `println!`, which is shown with failures alone.
        _ = writeln!(std::io::stderr(), "NOT RUN: npm's packages are not here; bash .ci/node installs them");
        return;
    }
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    for file in ["client.ts", "tsconfig.json", "spectral.yaml"] {
        fs::copy(sources.join(file), folder.join(file)).expect("a copy");
    }
    let document = app::document().expect("the document");
    fs::write(folder.join("openapi.json"), document.to_string()).expect("a file");
    for (program, arguments) in [
        ("spectral", "lint openapi.json --ruleset spectral.yaml --fail-severity warn"),
        ("openapi-typescript", "openapi.json --output api.d.ts"),
        ("tsc", "--project tsconfig.json"),
    ] {
        let run = Command::new(programs.join(program)).args(arguments.split(' ')).current_dir(&folder).output();
        let output = run.unwrap_or_else(|error| panic!("{program}: {error}"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments}, in {}\n{out}{err}", folder.display());
        println!("{out}");
    }
}
