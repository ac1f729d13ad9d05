//! Two parsers of calendar objects that are not ours: PyPI's icalendar and vobject, run by `check.py`.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

/// A calendar object and what a reader should understand; `check.py` says in which form.
pub struct Sample {
    pub ics: String,
    pub meant: Value,
}

/// Fails unless both parsers understand each sample as it was meant. Where Python does not have them this says so and
/// returns, except in CI.
#[allow(clippy::disallowed_methods, reason = "CI is not a setting of the server")]
pub fn assert_read_as_meant(samples: &[Sample]) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);

    let present = Command::new("python3").args(["-c", "import icalendar, vobject"]).output();
    if !present.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must install PyPI's icalendar and vobject");
        // Not `println!`, which is shown with failures alone.
        _ = writeln!(std::io::stderr(), "NOT RUN: python3 with PyPI's packages icalendar and vobject is not here");
        return;
    }
    let name = format!("ics-parsers-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let mut expected = serde_json::Map::new();
    let mut check = Command::new("python3");
    check.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parsers/check.py")).arg(folder.join("expected.json"));
    for (number, sample) in samples.iter().enumerate() {
        let name = format!("{number}.ics");
        fs::write(folder.join(&name), &sample.ics).expect("a file");
        check.arg(folder.join(&name));
        expected.insert(name, sample.meant.clone());
    }
    fs::write(folder.join("expected.json"), Value::from(expected).to_string()).expect("a file");

    let output = check.output().expect("python3 runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}\nthe files are in {}", folder.display());
    println!("{out}");
    fs::remove_dir_all(&folder).expect("the folder goes");
}
