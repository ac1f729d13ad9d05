//! A recruiter's numbers as the dashboard shows them: figures, and small charts that are tables too.
//!
//! Lengths are those of the charts' own coordinates; the browser scales them.

use crate::interview::analytics::Analytics;

/// So many weeks fit into the chart.
const WEEKS: usize = 12;
/// The longest bar of each chart.
const WIDEST: f64 = 230.0;
const HIGHEST: f64 = 80.0;

pub struct Numbers {
    pub figures: Vec<Figure>,
    pub types: Vec<TypeBar>,
    /// The last weeks with interviews, oldest first.
    pub weeks: Vec<WeekBar>,
}

/// One number.
pub struct Figure {
    pub name: &'static str,
    /// `–` for what is not known.
    pub value: String,
    /// What it means, or why it is not known; may be empty.
    pub meaning: String,
}

/// A row of the chart by type, one below the other.
pub struct TypeBar {
    pub name: &'static str,
    pub count: i64,
    /// Where its text stands.
    pub y: usize,
    pub width: f64,
}

/// A column of the chart by week, one beside the other.
pub struct WeekBar {
    /// `2026-W48`
    pub week: String,
    /// Its Monday: `23 Nov 2026`, and its parts for the chart.
    pub monday: String,
    pub day: String,
    pub month: String,
    pub total: i64,
    pub completed: i64,
    pub x: usize,
    pub middle: usize,
    /// Of all, and of the completed ones in front of them.
    pub height: f64,
    pub completed_height: f64,
}

impl WeekBar {
    /// Where a bar of this height begins.
    pub fn top(&self, height: &f64) -> f64 {
        HIGHEST + 12.0 - height
    }
}

impl Numbers {
    pub fn of(numbers: &Analytics) -> Numbers {
        Numbers { figures: figures(numbers), types: types(numbers), weeks: weeks(numbers) }
    }

    /// The chart in a sentence.
    pub fn types_said(&self) -> String {
        let said: Vec<String> = self.types.iter().map(|bar| format!("{} {}", bar.name, bar.count)).collect();
        format!("Interviews by type: {}.", said.join(", "))
    }

    /// The chart in a sentence.
    pub fn weeks_said(&self) -> String {
        let said = |bar: &WeekBar| format!("week of {}: {}, {} completed", bar.monday, bar.total, bar.completed);
        format!("Interviews by week. {}.", self.weeks.iter().map(said).collect::<Vec<_>>().join("; "))
    }
}

fn figures(numbers: &Analytics) -> Vec<Figure> {
    let count = |name, count: i64| Figure { name, value: count.to_string(), meaning: String::new() };
    let mean = |name, minutes: Option<f64>, unknown: &str| match minutes {
        Some(minutes) => Figure { name, value: format!("{minutes} min"), meaning: String::new() },
        None => Figure { name, value: "–".to_owned(), meaning: unknown.to_owned() },
    };
    let waited = match (numbers.no_shows, numbers.no_shows_confirmed) {
        (0, _) => String::new(),
        (_, confirmed) => format!("{confirmed} while you were there"),
    };
    vec![
        count("Interviews", numbers.total_interviews),
        count("Completed", numbers.completed_interviews),
        count("Upcoming", numbers.upcoming),
        count("Cancelled", numbers.cancelled),
        Figure { meaning: waited, ..count("No-shows", numbers.no_shows) },
        mean("Mean length", numbers.average_duration, "no meeting has ended yet"),
        mean("Mean delay", numbers.average_join_delay_minutes, "no meeting has begun yet"),
    ]
}

fn types(numbers: &Analytics) -> Vec<TypeBar> {
    let kinds = &numbers.by_type;
    let counts = [
        ("Google Meet", kinds.google_meet),
        ("Phone", kinds.phone),
        ("In person", kinds.in_person),
        ("Other", kinds.custom),
    ];
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or_default();
    let bar = |(row, (name, count)): (usize, (&'static str, i64))| TypeBar {
        name,
        count,
        y: row * 20 + 14,
        width: part(count, most, WIDEST),
    };
    counts.into_iter().enumerate().map(bar).collect()
}

fn weeks(numbers: &Analytics) -> Vec<WeekBar> {
    let last = &numbers.by_week[numbers.by_week.len().saturating_sub(WEEKS)..];
    let most = last.iter().map(|week| week.total).max().unwrap_or_default();
    let bar = |(column, week): (usize, &crate::interview::analytics::Week)| WeekBar {
        week: week.week.clone(),
        monday: week.week_start.format("%-d %b %Y").to_string(),
        day: week.week_start.format("%-d").to_string(),
        month: week.week_start.format("%b").to_string(),
        total: week.total,
        completed: week.completed,
        x: column * 30 + 4,
        middle: column * 30 + 15,
        height: part(week.total, most, HIGHEST),
        completed_height: part(week.completed, most, HIGHEST),
    };
    last.iter().enumerate().map(bar).collect()
}

/// How long a bar is, to one decimal.
fn part(count: i64, most: i64, longest: f64) -> f64 {
    if most == 0 { 0.0 } else { (count as f64 / most as f64 * longest * 10.0).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use chrono::{NaiveDate, TimeDelta};

    use super::*;
    use crate::interview::analytics::{ByType, Week};

    fn numbers(weeks: i64) -> Analytics {
        let monday = NaiveDate::from_ymd_opt(2026, 8, 31).expect("a date");
        let week = |nth| {
            let week_start = monday + TimeDelta::weeks(nth);
            Week { week: week_start.format("%G-W%V").to_string(), week_start, total: nth + 1, completed: nth }
        };
        Analytics {
            total_interviews: 12,
            completed_interviews: 7,
            average_duration: Some(42.5),
            no_shows: 2,
            no_shows_confirmed: 1,
            upcoming: 3,
            cancelled: 1,
            average_join_delay_minutes: None,
            by_type: ByType { google_meet: 9, phone: 3, in_person: 0, custom: 0 },
            by_week: (0..weeks).map(week).collect(),
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash_with_the_reason() {
        let figures = Numbers::of(&numbers(0)).figures;
        let said: Vec<_> = figures.iter().map(|figure| (figure.name, &*figure.value)).collect();
        let known =
            [("Interviews", "12"), ("Completed", "7"), ("Upcoming", "3"), ("Cancelled", "1"), ("No-shows", "2")];
        assert_eq!(said[..5], known);
        assert_eq!(said[5..], [("Mean length", "42.5 min"), ("Mean delay", "–")]);
        assert_eq!(figures[6].meaning, "no meeting has begun yet");
        assert_eq!(figures[4].meaning, "1 while you were there");
    }

    #[test]
    fn bars_are_as_long_as_their_share_of_the_longest() {
        let numbers = Numbers::of(&numbers(0));
        let widths: Vec<f64> = numbers.types.iter().map(|bar| bar.width).collect();
        assert_eq!(widths, [WIDEST, 76.7, 0.0, 0.0]);
        assert_eq!(numbers.types_said(), "Interviews by type: Google Meet 9, Phone 3, In person 0, Other 0.");
    }

    #[test]
    fn the_chart_shows_the_last_weeks_with_interviews() {
        let weeks = Numbers::of(&numbers(14)).weeks;
        assert_eq!((weeks.len(), &*weeks[0].week, &*weeks[11].monday), (WEEKS, "2026-W38", "30 Nov 2026"));
        let last = &weeks[11];
        assert_eq!((last.total, last.completed, last.height), (14, 13, HIGHEST));
        assert_eq!((last.completed_height, last.x), (74.3, 334));
    }
}
