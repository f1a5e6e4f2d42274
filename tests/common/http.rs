//! HTTP/1.1 by hand, so that a test can send what no client library would.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for any answer; only ever waited in full when the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(held, _)| held == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

pub struct Connection {
    stream: TcpStream,
    /// Received and not read yet.
    buffer: Vec<u8>,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

impl Connection {
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will be sent; answers can still come.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        self.send(&request(method, path, body))?;
        self.read_response()
    }

    /// Whether the other side closed without sending more; what it still sent is thrown away.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    pub fn read_response(&mut self) -> io::Result<Response> {
        let head = loop {
            let head = self.read_until(b"\r\n\r\n")?;
            // An interim answer (100 Continue) is followed by the real one.
            if !head.starts_with(b"HTTP/1.1 1") {
                break head;
            }
        };
        let head = String::from_utf8(head).map_err(|_| malformed("head"))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        let mut response = Response {
            status: status.ok_or_else(|| malformed("status line"))?,
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                .collect(),
            body: Vec::new(),
        };
        response.body = match (response.header("content-length"), response.header("transfer-encoding")) {
            (Some(length), _) => {
                let length = length.parse().map_err(|_| malformed("content-length"))?;
                self.read_exactly(length)?
            }
            (None, Some(_)) => self.read_chunks()?,
            (None, None) => self.read_rest()?,
        };
        Ok(response)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            let digits = line.split(|&byte| byte == b';' || byte == b'\r').next();
            let size = digits.and_then(|digits| usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
            match size.ok_or_else(|| malformed("chunk size"))? {
                0 => {
                    while self.read_until(b"\r\n")? != b"\r\n" {}
                    return Ok(body);
                }
                size => {
                    body.extend(self.read_exactly(size)?);
                    self.read_until(b"\r\n")?;
                }
            }
        }
    }

    /// Up to and with `end`.
    fn read_until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let rest = self.buffer.split_off(at + end.len());
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            self.receive()?;
        }
    }

    fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.receive()?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn read_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut body)?;
        Ok(body)
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return Ok(());
                }
                // A signal, or the whole machine was paused.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The bytes of one request with a JSON body.
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: kv\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// One request over a connection of its own.
pub fn send(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
    Connection::open(addr)?.request(method, path, body)
}

pub fn get(addr: SocketAddr, path: &str) -> Response {
    send(addr, "GET", path, b"").unwrap()
}
