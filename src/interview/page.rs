//! Which part of a list a request asks for (contract §5.8).
//!
//! A page begins after a row, not after a number of rows: what is inserted or changed meanwhile moves no other row into
//! or out of the pages to come.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{NaiveDate, NaiveTime};

use super::listed::Listed;
use crate::{
    http::{Error, Result, extract::QueryParams},
    zone,
};

/// The most rows of a page.
const MOST: i64 = 200;
/// The rows of a page for who gives a cursor alone.
const USUAL: i64 = 50;

/// A row's place in the order of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub date: NaiveDate,
    pub time: NaiveTime,
    pub id: i64,
}

impl Place {
    /// Before every row: lists run backwards.
    const TOP: Place = Place {
        date: NaiveDate::from_ymd_opt(9999, 12, 31).unwrap(),
        time: NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap(),
        id: i64::MAX,
    };

    pub fn of(interview: &Listed) -> Place {
        Place { date: interview.date, time: interview.time, id: interview.id }
    }

    fn cursor(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {} {}", self.date, self.time, self.id))
    }

    fn parse(cursor: &str) -> Option<Place> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let mut parts = text.split(' ');
        let (date, time, id) = (parts.next()?, parts.next()?, parts.next()?);
        let place = Place { date: zone::parse_date(date)?, time: time.parse().ok()?, id: id.parse().ok()? };
        // Only as we write it.
        (place.cursor() == cursor).then_some(place)
    }
}

/// A part of a list: the rows after a place, all of them or so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub after: Place,
    pub limit: Option<i64>,
}

impl Page {
    pub fn parse(query: &QueryParams) -> Result<Page> {
        let limit = match query.get("limit") {
            Some(text) => Some(limit(text).ok_or(Error::bad_request("Invalid limit."))?),
            None => query.get("cursor").map(|_| USUAL),
        };
        let after = match query.get("cursor") {
            Some(cursor) => Place::parse(cursor).ok_or(Error::bad_request("Invalid cursor."))?,
            None => Place::TOP,
        };
        Ok(Page { after, limit })
    }
}

/// The query of the page after a place.
pub fn query_after(place: Place, limit: i64) -> String {
    format!("limit={limit}&cursor={}", place.cursor())
}

fn limit(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(MOST).min(MOST)).filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_is_a_number_from_1_of_which_those_beyond_200_count_as_200() {
        let limits = ["1", "007", "200", "201", "99999999999999999999"].map(limit);
        assert_eq!(limits, [1, 7, 200, 200, 200].map(Some));
        for text in ["0", "000", "-1", "+1", " 1", "1.5", "x", "١"] {
            assert_eq!(limit(text), None, "{text}");
        }
    }

    #[test]
    fn a_cursor_is_read_exactly_as_it_was_written() {
        for time in ["00:00:00", "14:00:00", "23:59:59.999999"] {
            let place = Place { time: time.parse().unwrap(), ..Place::TOP };
            assert_eq!(Place::parse(&place.cursor()), Some(place));
            for change in ["=", "A", " "] {
                assert_eq!(Place::parse(&format!("{}{change}", place.cursor())), None);
            }
        }
        for text in [
            "",
            "2030-01-15 14:00:00",
            "2030-01-15 14:00:00 x",
            "2030-02-30 14:00:00 1",
            "0000-01-01 14:00:00 1",
            "12030-01-15 14:00:00 1",
            "2030-01-15 14:00 1",
            "2030-01-15 14:00:00 1 1",
            "2030-01-15 14:00:00 99999999999999999999",
        ] {
            assert_eq!(Place::parse(&BASE64_URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_place_comes_back_from_its_cursor(
            days in 1..=3_652_059i32, second in 0..86_400u32, micros in 0..1_000_000u32, id in any::<i64>(),
        ) {
            let date = NaiveDate::from_num_days_from_ce_opt(days).unwrap();
            let time = NaiveTime::from_num_seconds_from_midnight_opt(second, micros * 1000).unwrap();
            let place = Place { date, time, id };
            prop_assert_eq!(Place::parse(&place.cursor()), Some(place));
        }

        #[test]
        fn any_text_is_the_cursor_of_a_place_or_none(
            text in any::<String>(), base64 in "[A-Za-z0-9_-]{0,60}",
            inside in "[0-9]{0,5}-[0-9]{0,3}-[0-9]{0,3} [0-9:.]{0,18} [+-]?[0-9]{0,22}",
        ) {
            for cursor in [text, base64, BASE64_URL_SAFE_NO_PAD.encode(inside)] {
                if let Some(place) = Place::parse(&cursor) {
                    prop_assert_eq!(place.cursor(), cursor);
                }
            }
        }
    }
}
