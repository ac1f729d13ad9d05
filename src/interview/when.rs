//! When an interview is, as people say it: `Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)`.

use chrono::{DateTime, FixedOffset, Utc};

use crate::zone::{self, Zone};

/// Day, hours and place of what lasts from `start` to `end`.
pub fn line(zone: &Zone, span: (DateTime<Utc>, DateTime<Utc>)) -> String {
    format!("{} {}", hours(zone, span), place(zone, span))
}

/// `Tue 1 Dec 2026, 09:00–10:00` by the zone's clock; `…, 23:30–00:30 (+1 day)` for what ends on another day.
pub fn hours(zone: &Zone, (start, end): (DateTime<Utc>, DateTime<Utc>)) -> String {
    let (start, end) = (zone.local(start), zone.local(end));
    let days = (end.date_naive() - start.date_naive()).num_days();
    let later = match days {
        0 => String::new(),
        1 => " (+1 day)".to_owned(),
        days => format!(" ({days:+} days)"),
    };
    let [from, to] = [start, end].map(|at| zone::format_hm(at.time()));
    format!("{}, {from}–{to}{later}", start.format("%a %-d %b %Y"))
}

/// Whose clock that is: `in Vancouver (UTC−7)`, or the offset alone where a zone is nothing else. Where the clocks
/// change between start and end, both offsets.
pub fn place(zone: &Zone, (start, end): (DateTime<Utc>, DateTime<Utc>)) -> String {
    let [first, last] = [start, end].map(|at| offset(*zone.local(at).offset()));
    let offsets = if first == last { first } else { format!("{first}, then {last}") };
    match town(zone.name()) {
        Some(town) => format!("in {town} ({offsets})"),
        None => offsets,
    }
}

/// `Vancouver` of `America/Vancouver`, `US Eastern` of `US/Eastern`; `None` for names that say an offset.
fn town(zone: &str) -> Option<String> {
    const OFFSETS: [&str; 7] = ["UTC", "UCT", "GMT", "GMT0", "Universal", "Greenwich", "Zulu"];
    // There a second part alone would be half a name.
    const COUNTRIES: [&str; 5] = ["US", "Canada", "Brazil", "Mexico", "Chile"];
    let name = match zone.rsplit_once('/') {
        Some(("Etc", _)) => return None,
        Some((country, _)) if COUNTRIES.contains(&country) => zone.replace('/', " "),
        Some((_, town)) => town.to_owned(),
        None if OFFSETS.contains(&zone) || zone.starts_with("GMT") => return None,
        None => zone.to_owned(),
    };
    Some(name.replace('_', " "))
}

/// `UTC−7`, `UTC+5:30`, `UTC`: with a real minus sign, and minutes only where there are some.
fn offset(offset: FixedOffset) -> String {
    let minutes = offset.local_minus_utc() / 60;
    let sign = if minutes < 0 { '−' } else { '+' };
    match (minutes.abs() / 60, minutes.abs() % 60) {
        (0, 0) => "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn said(name: &str, start: &str, minutes: i64) -> String {
        let start: DateTime<Utc> = start.parse().expect("an instant");
        line(&Zone::parse(name).expect("a zone"), (start, start + TimeDelta::minutes(minutes)))
    }

    #[test]
    fn an_interview_is_said_by_its_own_clock_with_town_and_offset() {
        for (zone, start, minutes, words) in [
            ("America/Vancouver", "2026-12-01T16:00:00Z", 60, "Tue 1 Dec 2026, 09:00–10:00 in Vancouver (UTC−7)"),
            ("Asia/Kolkata", "2030-01-16T00:30:00Z", 45, "Wed 16 Jan 2030, 06:00–06:45 in Kolkata (UTC+5:30)"),
            ("America/St_Johns", "2030-01-15T15:00:00Z", 60, "Tue 15 Jan 2030, 11:30–12:30 in St Johns (UTC−3:30)"),
            ("Asia/Kathmandu", "2030-01-15T15:00:00Z", 60, "Tue 15 Jan 2030, 20:45–21:45 in Kathmandu (UTC+5:45)"),
            ("Europe/London", "2030-01-15T09:00:00Z", 60, "Tue 15 Jan 2030, 09:00–10:00 in London (UTC)"),
            ("UTC", "2030-01-15T09:00:30Z", 60, "Tue 15 Jan 2030, 09:00:30–10:00:30 UTC"),
            ("Etc/GMT+5", "2030-01-15T15:00:00Z", 60, "Tue 15 Jan 2030, 10:00–11:00 UTC−5"),
            ("US/Eastern", "2030-01-15T15:00:00Z", 60, "Tue 15 Jan 2030, 10:00–11:00 in US Eastern (UTC−5)"),
            (
                "America/Argentina/Buenos_Aires",
                "2030-01-15T15:00:00Z",
                60,
                "Tue 15 Jan 2030, 12:00–13:00 in Buenos Aires (UTC−3)",
            ),
        ] {
            assert_eq!(said(zone, start, minutes), words);
        }
    }

    #[test]
    fn an_end_on_another_day_is_said() {
        assert_eq!(
            said("Asia/Tokyo", "2030-01-15T14:30:00Z", 60),
            "Tue 15 Jan 2030, 23:30–00:30 (+1 day) in Tokyo (UTC+9)"
        );
        assert_eq!(
            said("Asia/Tokyo", "2030-01-15T14:30:00Z", 1500),
            "Tue 15 Jan 2030, 23:30–00:30 (+2 days) in Tokyo (UTC+9)"
        );
        assert_eq!(
            said("Asia/Tokyo", "2030-01-15T14:00:00Z", 60),
            "Tue 15 Jan 2030, 23:00–00:00 (+1 day) in Tokyo (UTC+9)"
        );
    }

    #[test]
    fn a_change_of_clocks_in_between_is_said() {
        assert_eq!(
            said("America/New_York", "2027-11-07T05:30:00Z", 60),
            "Sun 7 Nov 2027, 01:30–01:30 in New York (UTC−4, then UTC−5)"
        );
    }

    #[test]
    fn every_zone_has_words_without_underscores_and_slashes() {
        for name in zone::names() {
            let words = said(name, "2030-01-15T15:00:00Z", 60);
            assert!(!words.contains(['_', '/']) && words.contains("UTC"), "{name}: {words}");
        }
    }
}
