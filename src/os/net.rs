//! TCP and UDP sockets.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::env::{BoxFuture, Datagrams, Listener, Net, Stream};

/// Connections that the kernel completes before they are accepted. A burst of clients must not be refused because the
/// node was busy for a few milliseconds; the kernel caps it at its own `somaxconn`.
pub const BACKLOG: u32 = 4096;

#[derive(Debug, Clone, Copy, Default)]
pub struct RealNet;

impl Net for RealNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let socket = match addr {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            // A restarted node must get its port back at once, though old connections still linger in TIME_WAIT.
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            Ok(Box::new(RealListener(socket.listen(BACKLOG)?)) as Box<dyn Listener>)
        })
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn datagrams(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async move { Ok(Box::new(RealDatagrams(UdpSocket::bind(addr).await?)) as Box<dyn Datagrams>) })
    }
}

struct RealDatagrams(UdpSocket);

impl Datagrams for RealDatagrams {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn send_to<'a>(&'a self, bytes: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.0.send_to(bytes, to).await.map(|_| ()) })
    }

    fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(self.0.recv_from(buffer))
    }
}

struct RealListener(TcpListener);

impl Listener for RealListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            // Small answers must not wait for the client's delayed acknowledgement.
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Stream>, peer))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn bytes_travel_both_ways() -> io::Result<()> {
        let mut listener = RealNet.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (mut server, peer) = listener.accept().await?;
        assert_eq!(peer, client.local_addr()?);

        client.write_all(b"ping").await?;
        let mut received = [0; 4];
        server.read_exact(&mut received).await?;
        assert_eq!(&received, b"ping");
        server.write_all(b"pong").await?;
        client.read_exact(&mut received).await?;
        assert_eq!(&received, b"pong");
        Ok(())
    }

    #[tokio::test]
    async fn a_connection_and_datagrams_reach_their_address() -> io::Result<()> {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = RealNet.listen(loopback).await?;
        let mut client = RealNet.connect(listener.local_addr()?).await?;
        let (mut server, _) = listener.accept().await?;
        client.write_all(b"hello").await?;
        let mut received = [0; 5];
        server.read_exact(&mut received).await?;
        assert_eq!(&received, b"hello");

        let (one, two) = (RealNet.datagrams(loopback).await?, RealNet.datagrams(loopback).await?);
        one.send_to(b"datagram", two.local_addr()?).await?;
        let mut buffer = [0; 16];
        assert_eq!(two.recv_from(&mut buffer).await?, (8, one.local_addr()?));
        assert_eq!(&buffer[..8], b"datagram");
        Ok(())
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_and_is_free_again_after_the_listener_is_gone() -> io::Result<()> {
        let listener = RealNet.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let addr = listener.local_addr()?;
        let refused = RealNet.listen(addr).await.err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::AddrInUse));
        drop(listener);
        RealNet.listen(addr).await?;
        Ok(())
    }
}
