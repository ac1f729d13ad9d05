//! A JSON array as an answer, whatever its length and however slow its reader.
//!
//! A long one goes out in pieces: the next is read once the client has received most of the one before. A piece is at
//! most 256 rows, and ends with the row that makes it 256 KiB long. So a slow client holds no database connection, and
//! of the answer one piece and what of the one before still waits for the socket: with rows of up to 30 KiB less than
//! half a MiB, and the next piece's rows while they are read.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryFutureExt, future, stream};
use serde::Serialize;
use tracing::{Instrument, Span};

use super::{Result, routes::JSON};

/// So many rows are read at a time, and one more: most lists are one piece.
pub const ROWS: i64 = 256;

/// A piece ends with the row that makes it so long.
const BYTES: usize = 256 << 10;

/// Answers with all rows after `start`. `read` gives those after a cursor, so many at most, each with its own cursor.
/// An array of one piece is read at once and has a `Content-Length`.
///
/// A fault in the first piece is the handler's. After that the status has been sent: a later fault is logged and breaks
/// the transfer off, so that nobody takes a part for the whole.
pub async fn array<T, P, R>(start: P, read: impl Fn(P, i64) -> R + Send + 'static) -> Result<Response>
where
    T: Serialize,
    P: Copy + Send + 'static,
    R: Future<Output = sqlx::Result<Vec<(P, T)>>> + Send + 'static,
{
    let (first, next) = piece(true, &read(start, ROWS + 1).await?, ROWS)?;
    let kind = [(header::CONTENT_TYPE, JSON)];
    if next.is_none() {
        return Ok((kind, first).into_response());
    }
    let span = Span::current();
    let rest = stream::try_unfold(next, move |next| {
        let reading = next.map(|(cursor, most)| (read(cursor, most + 1), most));
        let piece = async {
            let Some((reading, most)) = reading else { return Ok(None) };
            anyhow::Ok(Some(piece(false, &reading.await?, most)?))
        };
        piece
            .inspect_err(|error| tracing::error!(error = format!("{error:#}"), "a list was broken off"))
            .instrument(span.clone())
    });
    let pieces = stream::once(future::ready(Ok(first))).chain(rest);
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// Answers with the first of `rows`: at most `most`, of which `rows` may have one more. Gives the cursor of the last
/// one if there are more.
pub fn page<T: Serialize, P: Copy>(rows: &[(P, T)], most: i64) -> Result<(Response, Option<P>)> {
    let (mut json, next) = piece(true, rows, most)?;
    if next.is_some() {
        json.push(b']');
    }
    Ok((([(header::CONTENT_TYPE, JSON)], json).into_response(), next.map(|(cursor, _)| cursor)))
}

/// The cursor that a part comes after, and how many rows to read for it.
type Next<P> = (P, i64);

/// The first of `rows` as a part of an array's text: at most `most`, of which `rows` may have one more. If there are
/// more, also the next part: with as many rows as have filled this one, or twice as many.
fn piece<T: Serialize, P: Copy>(
    is_first: bool,
    rows: &[(P, T)],
    most: i64,
) -> serde_json::Result<(Vec<u8>, Option<Next<P>>)> {
    let mut json = Vec::new();
    if is_first {
        json.push(b'[');
    }
    let mut sent = 0;
    while sent < rows.len().min(most as usize) && json.len() < BYTES {
        if !is_first || sent > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, &rows[sent].1)?;
        sent += 1;
    }
    if sent == rows.len() {
        json.push(b']');
        return Ok((json, None));
    }
    let then = if json.len() < BYTES { ROWS.min(2 * most) } else { sent as i64 };
    // With room for the end of a page.
    json.shrink_to(json.len() + 1);
    Ok((json, Some((rows[sent - 1].0, then))))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    /// The pieces of an answer with such strings, and how many rows were asked for each time.
    fn answered(rows: &[String]) -> (Vec<Vec<u8>>, Vec<i64>) {
        let (all, asked) = (rows.to_vec(), Arc::new(Mutex::new(Vec::new())));
        let own = asked.clone();
        let read = move |after: usize, most: i64| {
            own.lock().unwrap().push(most);
            let rows = all.iter().cloned().enumerate().skip(after).take(most as usize);
            future::ready(Ok(rows.map(|(number, row)| (number + 1, row)).collect()))
        };
        let pieces = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let answer = array(0, read).await.unwrap();
            let pieces: Vec<_> = answer.into_body().into_data_stream().collect().await;
            pieces.into_iter().map(|piece| piece.unwrap().to_vec()).collect()
        });
        let asked = asked.lock().unwrap().clone();
        (pieces, asked)
    }

    #[test]
    fn usual_lists_of_up_to_256_rows_are_read_at_once() {
        for (rows, times) in [(0, 1), (1, 1), (25, 1), (256, 1), (257, 2), (512, 2), (513, 3)] {
            let (pieces, asked) = answered(&vec!["x".repeat(700); rows]);
            assert_eq!((pieces.len(), asked), (times, vec![257; times]), "{rows} rows");
        }
    }

    #[test]
    fn rows_that_fill_pieces_are_read_in_such_numbers_as_fill_one() {
        // Nine rows of 30 KiB are a piece.
        let (pieces, asked) = answered(&vec!["x".repeat(30 << 10); 90]);
        assert_eq!((pieces.len(), asked), (10, [&[257][..], &[10; 9]].concat()));
        // Once rows are short again, ever more are read.
        let rows = [vec!["x".repeat(30 << 10); 18], vec!["x".to_owned(); 1000]].concat();
        assert_eq!(answered(&rows).1, [257, 10, 10, 19, 37, 73, 145, 257, 257, 257]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn pieces_are_together_the_array_and_none_is_longer_than_its_bound(
            rows in proptest::collection::vec(prop_oneof![9 => 0..100usize, 1 => 0..40_000usize], 0..800),
        ) {
            let rows: Vec<String> = rows.into_iter().map(|length| "x".repeat(length)).collect();
            let (pieces, _) = answered(&rows);
            let longest = rows.iter().map(String::len).max().unwrap_or(0);
            prop_assert!(pieces.iter().all(|piece| piece.len() < BYTES + longest + 4));
            prop_assert_eq!(pieces.concat(), serde_json::to_vec(&rows).unwrap());
        }
    }

    #[test]
    fn a_page_is_an_array_and_is_cut_by_number_and_by_length() {
        let rows = |many: usize, length: usize| (1..=many).map(|n| (n, "x".repeat(length))).collect::<Vec<_>>();
        for (rows, most, sent, next) in [
            (rows(0, 1), 5, 0, None),
            (rows(5, 1), 5, 5, None),
            (rows(6, 1), 5, 5, Some(5)),
            (rows(51, 30 << 10), 50, 9, Some(9)),
        ] {
            let (answer, cursor) = page(&rows, most).unwrap();
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX);
            let body = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(body).unwrap();
            let texts: Vec<&str> = rows[..sent].iter().map(|(_, text)| text.as_str()).collect();
            assert!(body == serde_json::to_vec(&texts).unwrap() && cursor == next, "{sent} rows, {cursor:?}");
        }
    }
}
