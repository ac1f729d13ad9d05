//! Our instants against those of an implementation that is not ours: Python's zoneinfo with the same release of the tz
//! database (PyPI's tzdata).

mod python;

use std::{fmt::Write as _, fs};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use interviews::zone::{Zone, names, tzdb_version};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

/// The wall clocks before and after every change of a zone's offset in these years.
fn around_changes(zone: &Zone, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<NaiveDateTime> {
    let offset = |at| zone.local(at).offset().local_minus_utc();
    let (mut walls, mut start) = (Vec::new(), from);
    while start < to {
        let next = start + TimeDelta::days(10);
        if offset(start) != offset(next) {
            let (mut before, mut after) = (start, next);
            while after - before > TimeDelta::seconds(1) {
                let middle = before + (after - before) / 2;
                let middle = DateTime::from_timestamp(middle.timestamp(), 0).expect("in range");
                *(if offset(middle) == offset(before) { &mut before } else { &mut after }) = middle;
            }
            for wall in [before, after].map(|at| zone.local(at).naive_local()) {
                walls.extend(
                    [-7200, -3600, -1800, -1, 0, 1, 1799, 1800, 3599, 3600].map(|by| wall + TimeDelta::seconds(by)),
                );
            }
        }
        start = next;
    }
    walls
}

#[test]
fn another_implementation_makes_the_same_instants_of_wall_times() {
    let release = tzdb_version();
    let import = format!("import tzdata; assert tzdata.IANA_VERSION == '{release}'");
    python::assert_agrees("zones.py", &import, &format!("PyPI's tzdata of {release}"), |folder| {
        let file = folder.join("walls");
        fs::write(&file, lines()).expect("a file");
        vec![file]
    });
}

/// Wall times, with the instants that we make of them, for `zones.py`.
fn lines() -> String {
    let at = |text: &str| text.parse::<DateTime<Utc>>().expect("an instant");
    // Seeded: the same times in every run.
    let mut runner = TestRunner::deterministic();
    let any = at("1970-01-02T00:00:00Z").timestamp()..at("2200-01-01T00:00:00Z").timestamp();
    let mut lines = String::new();
    for name in names() {
        let zone = Zone::parse(name).expect("a zone");
        let mut walls = around_changes(&zone, at("2024-01-01T00:00:00Z"), at("2029-01-01T00:00:00Z"));
        for _ in 0..40 {
            let seconds = any.new_tree(&mut runner).expect("an instant").current();
            walls.push(DateTime::from_timestamp(seconds, 0).expect("in range").naive_utc());
        }
        for wall in walls {
            let made = zone.instant(wall.date(), wall.time()).expect("in range").at.timestamp();
            writeln!(lines, "{name}\t{}\t{made}", wall.format("%Y-%m-%dT%H:%M:%S")).expect("a line");
        }
    }
    lines
}
