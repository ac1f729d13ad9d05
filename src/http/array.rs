//! A JSON array of any length as an answer.
//!
//! A long one goes out in pieces: the next is read once the client has received most of the one before. So a slow
//! client holds no database connection, and no more than one piece in memory.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryFutureExt, future, stream};
use serde::Serialize;
use tracing::{Instrument, Span};

use super::{Result, routes::JSON};

/// So many rows are read at a time: most lists are one piece.
pub const PIECE: i64 = 256;

/// Answers with all items from `start` on. `read` gives those of one piece, and where the next one begins if there are
/// more. An array of one piece has a `Content-Length`.
///
/// A fault in the first piece is the handler's. After that the status has been sent: a later fault is logged and breaks
/// the transfer off, so that nobody takes a part for the whole.
pub async fn array<T, P, R>(start: P, read: impl Fn(P) -> R + Send + 'static) -> Result<Response>
where
    T: Serialize,
    P: Send + 'static,
    R: Future<Output = sqlx::Result<(Vec<T>, Option<P>)>> + Send + 'static,
{
    let (items, next) = read(start).await?;
    let first = piece(true, &items, next.is_none())?;
    let kind = [(header::CONTENT_TYPE, JSON)];
    if next.is_none() {
        return Ok((kind, first).into_response());
    }
    drop(items);
    let span = Span::current();
    let rest = stream::try_unfold(next, move |place| {
        let reading = place.map(&read);
        let piece = async {
            let Some(reading) = reading else { return Ok(None) };
            let (items, next) = reading.await?;
            anyhow::Ok(Some((piece(false, &items, next.is_none())?, next)))
        };
        piece
            .inspect_err(|error| tracing::error!(error = format!("{error:#}"), "a list was broken off"))
            .instrument(span.clone())
    });
    let pieces = stream::once(future::ready(Ok(first))).chain(rest);
    Ok((kind, Body::from_stream(pieces)).into_response())
}

/// Cuts `rows`, read with a limit of `most` + 1, to `most`. Returns the place of the last one if there are more.
pub fn cut<T, P>(mut rows: Vec<T>, most: i64, place: impl Fn(&T) -> P) -> (Vec<T>, Option<P>) {
    let more = rows.len() as i64 > most;
    rows.truncate(most as usize);
    let next = rows.last().filter(|_| more).map(place);
    (rows, next)
}

/// Items as a part of an array's text, which ends with the last one.
fn piece<T: Serialize>(is_first: bool, items: &[T], is_last: bool) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(items)?;
    match (is_first, items.is_empty()) {
        (true, _) => {}
        (false, false) => json[0] = b',',
        (false, true) => _ = json.remove(0),
    }
    if !is_last {
        json.pop();
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_together_the_array() {
        for lengths in [&[0][..], &[1], &[3], &[2, 1], &[2, 0], &[1, 2, 3], &[2, 2, 0]] {
            let all: Vec<i32> = (0..lengths.iter().sum()).collect();
            let (mut rest, mut text) = (&all[..], Vec::new());
            for (number, length) in lengths.iter().enumerate() {
                let (items, others) = rest.split_at(*length as usize);
                text.extend(piece(number == 0, items, number + 1 == lengths.len()).unwrap());
                rest = others;
            }
            assert_eq!(text, serde_json::to_vec(&all).unwrap(), "{lengths:?}");
        }
    }
}
