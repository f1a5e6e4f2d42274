//! Which version of HTTP a connection speaks, by what it sends first.

use std::io;

use tokio::io::AsyncReadExt;

use super::watched::Watched;

/// What HTTP/2 begins with, where the client knows that it is spoken (RFC 9113, 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The beginning of it, which HTTP/1.1 takes for a request of a wrong version.
pub const H2_PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Reads no more than tells it, and leaves that to be read again.
pub async fn is_http2<B: Send + Sync + 'static>(io: &mut Watched<B>) -> io::Result<bool> {
    let mut begun = Vec::with_capacity(H2_PREFACE.len());
    while begun.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&begun) {
        let mut piece = [0; H2_PREFACE.len()];
        let free = piece.get_mut(begun.len()..).unwrap_or_default();
        let read = io.read(free).await?;
        begun.extend_from_slice(free.get(..read).unwrap_or_default());
        if read == 0 {
            break;
        }
    }
    let is_http2 = begun == H2_PREFACE;
    io.unread(begun);
    Ok(is_http2)
}
