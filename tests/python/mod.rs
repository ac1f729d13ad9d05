//! What other implementations, which Python has, make of the same things as ours.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// Lets a script of this folder check the files that `write` puts into a folder of theirs, given in this order. Fails
/// when the script does, and then leaves them there.
///
/// Where `python3` cannot do the `import` (or what follows it), for want of what is `needed`, this says so and returns,
/// except in CI.
#[allow(clippy::disallowed_methods, reason = "CI is not a setting of the server")]
pub fn assert_agrees(script: &str, import: &str, needed: &str, write: impl FnOnce(&Path) -> Vec<PathBuf>) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);

    let present = Command::new("python3").args(["-c", import]).output();
    if !present.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must install {needed}: .ci/requirements.txt");
        // Not `println!`, which is shown with failures alone.
        _ = writeln!(std::io::stderr(), "NOT RUN: python3 with {needed} is not here, see .ci/requirements.txt");
        return;
    }
    let name = format!("{script}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let files = write(&folder);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = Command::new("python3").arg(script).args(files).output().expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = out.lines().collect();
    let out = lines[lines.len().saturating_sub(50)..].join("\n");
    assert!(output.status.success(), "{out}\n{err}\nthe files are in {}", folder.display());
    println!("{out}");
    fs::remove_dir_all(&folder).expect("the folder goes");
}
