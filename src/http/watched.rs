//! A connection's bytes on their way, which tell what it is doing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::Stream;

use super::connection::Place;

/// A connection's bytes, watched and counted.
pub struct Watched<B> {
    io: Box<dyn Stream>,
    pub place: Place<B>,
    /// What is to be read again, before what comes.
    unread: Vec<u8>,
}

impl<B> Watched<B> {
    pub fn new(io: Box<dyn Stream>, place: Place<B>) -> Self {
        Self {
            io,
            place,
            unread: Vec::new(),
        }
    }

    /// Gives back what was read, all of it.
    pub fn unread(&mut self, bytes: Vec<u8>) {
        self.unread = bytes;
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        let bytes = match result {
            Poll::Ready(Ok(bytes)) => *bytes,
            Poll::Ready(Err(_)) => 0,
            Poll::Pending => return self.place.activity.took_nothing(),
        };
        self.place.activity.took_bytes(bytes as u64);
        self.place.front.metrics.sent_bytes.inc_by(bytes as u64);
    }
}

impl<B: Send + Sync + 'static> AsyncRead for Watched<B> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let bytes = self.unread.len().min(buf.remaining());
            buf.put_slice(self.unread.get(..bytes).unwrap_or_default());
            self.unread.drain(..bytes);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(context, buf);
        if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.place.activity.heard(bytes);
            self.place.front.metrics.received_bytes.inc_by(bytes.len() as u64);
        }
        result
    }
}

impl<B: Send + Sync + 'static> AsyncWrite for Watched<B> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
