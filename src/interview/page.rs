//! Which part of a list a request asks for (contract §5.8).
//!
//! A page begins after a row, not after a number of rows: what is inserted or changed meanwhile moves no other row into
//! or out of the pages to come.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{NaiveDate, NaiveTime};

use super::list::Entry;
use crate::{
    http::{Error, Result, extract::QueryParams},
    zone,
};

/// The most rows of a page.
const MOST: i64 = 200;
/// The rows of a page for who gives a cursor alone.
const USUAL: i64 = 50;

/// What a list goes on from: a row, by its place in the order of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub date: NaiveDate,
    pub time: NaiveTime,
    pub id: i64,
}

impl Cursor {
    /// Before every row: lists run backwards.
    const TOP: Cursor = Cursor {
        date: NaiveDate::from_ymd_opt(9999, 12, 31).unwrap(),
        time: NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap(),
        id: i64::MAX,
    };

    pub fn of(interview: &Entry) -> Cursor {
        Cursor { date: interview.date, time: interview.time, id: interview.id }
    }

    fn encoded(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{} {} {}", self.date, self.time, self.id))
    }

    fn parse(encoded: &str) -> Option<Cursor> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
        let mut parts = text.split(' ');
        let (date, time, id) = (parts.next()?, parts.next()?, parts.next()?);
        let cursor = Cursor { date: zone::parse_date(date)?, time: time.parse().ok()?, id: id.parse().ok()? };
        // Only as we write it.
        (cursor.encoded() == encoded).then_some(cursor)
    }
}

/// A part of a list: the rows after a cursor, all of them or so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub after: Cursor,
    pub limit: Option<i64>,
}

impl Page {
    pub fn parse(query: &QueryParams) -> Result<Page> {
        let limit = match query.get("limit") {
            Some(text) => Some(limit(text).ok_or(Error::bad_request("Invalid limit."))?),
            None => query.get("cursor").map(|_| USUAL),
        };
        let after = match query.get("cursor") {
            Some(encoded) => Cursor::parse(encoded).ok_or(Error::bad_request("Invalid cursor."))?,
            None => Cursor::TOP,
        };
        Ok(Page { after, limit })
    }
}

/// The query of the page after a cursor.
pub fn query_after(cursor: Cursor, limit: i64) -> String {
    format!("limit={limit}&cursor={}", cursor.encoded())
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
            let cursor = Cursor { time: time.parse().unwrap(), ..Cursor::TOP };
            assert_eq!(Cursor::parse(&cursor.encoded()), Some(cursor));
            for change in ["=", "A", " "] {
                assert_eq!(Cursor::parse(&format!("{}{change}", cursor.encoded())), None);
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
            assert_eq!(Cursor::parse(&BASE64_URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_cursor_comes_back_from_its_text(
            days in 1..=3_652_059i32, second in 0..86_400u32, micros in 0..1_000_000u32, id in any::<i64>(),
        ) {
            let date = NaiveDate::from_num_days_from_ce_opt(days).unwrap();
            let time = NaiveTime::from_num_seconds_from_midnight_opt(second, micros * 1000).unwrap();
            let cursor = Cursor { date, time, id };
            prop_assert_eq!(Cursor::parse(&cursor.encoded()), Some(cursor));
        }

        #[test]
        fn any_text_is_one_cursor_or_none(
            text in any::<String>(), base64 in "[A-Za-z0-9_-]{0,60}",
            inside in "[0-9]{0,5}-[0-9]{0,3}-[0-9]{0,3} [0-9:.]{0,18} [+-]?[0-9]{0,22}",
        ) {
            for encoded in [text, base64, BASE64_URL_SAFE_NO_PAD.encode(inside)] {
                if let Some(cursor) = Cursor::parse(&encoded) {
                    prop_assert_eq!(cursor.encoded(), encoded);
                }
            }
        }
    }
}
