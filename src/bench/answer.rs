//! Answers over HTTP/1.1: status and length, nothing more. Bodies are passed over.

use super::protocol::{Answer, Garbled, Step};

/// Far more than a node sends.
const HEADERS_MAX: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of the body that are to come.
    Body(u64),
    ChunkSize,
    /// Bytes of the chunk that are to come, with its line end.
    Chunk(u64),
    /// After the last chunk: lines up to an empty one.
    Trailers,
}

/// Reads one answer after the other, in pieces of any size.
#[derive(Debug, Clone)]
pub struct HttpAnswers {
    state: State,
    answer: Answer,
}

impl Default for HttpAnswers {
    fn default() -> Self {
        Self {
            state: State::Head,
            answer: Answer {
                status: 0,
                closes: false,
            },
        }
    }
}

impl HttpAnswers {
    pub fn reset(&mut self) {
        self.state = State::Head;
    }

    /// Reads up to the end of the answer under way, or of the input.
    pub fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let Some(used) = self.step(rest)? else {
                return Ok(Step { consumed, answer: None });
            };
            consumed += used;
            if self.state == State::Head {
                let answer = Some(self.answer);
                return Ok(Step { consumed, answer });
            }
        }
    }

    /// One step: how much it used, or None when it takes more input. In state `Head` afterwards, the answer is complete.
    fn step(&mut self, input: &[u8]) -> Result<Option<usize>, Garbled> {
        match self.state {
            State::Head => self.head(input),
            State::Body(left) | State::Chunk(left) => {
                let used = left.min(input.len() as u64);
                if used == 0 {
                    return Ok(None);
                }
                self.state = match (self.state, left - used) {
                    (State::Body(_), 0) => State::Head,
                    (State::Body(_), left) => State::Body(left),
                    (_, 0) => State::ChunkSize,
                    (_, left) => State::Chunk(left),
                };
                Ok(Some(used as usize))
            }
            State::ChunkSize => match httparse::parse_chunk_size(input) {
                Err(_) => Err(Garbled),
                Ok(httparse::Status::Partial) => Ok(None),
                Ok(httparse::Status::Complete((used, size))) => {
                    self.state = match size {
                        0 => State::Trailers,
                        _ => State::Chunk(size.checked_add(2).ok_or(Garbled)?),
                    };
                    Ok(Some(used))
                }
            },
            State::Trailers => {
                let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else {
                    return Ok(None);
                };
                if end == 0 {
                    self.state = State::Head;
                }
                Ok(Some(end + 2))
            }
        }
    }

    fn head(&mut self, input: &[u8]) -> Result<Option<usize>, Garbled> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let used = match head.parse(input) {
            Err(_) => return Err(Garbled),
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(used)) => used,
        };
        let status = head.code.ok_or(Garbled)?;
        let mut length = None;
        let mut chunked = false;
        let mut closes = false;
        for header in head.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).map_err(|_| Garbled)?;
                length = Some(text.trim().parse::<u64>().map_err(|_| Garbled)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = header.value.eq_ignore_ascii_case(b"chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                closes = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.answer = Answer { status, closes };
        self.state = match (chunked, length) {
            (true, _) => State::ChunkSize,
            (false, Some(0)) => State::Head,
            (false, Some(length)) => State::Body(length),
            // Such a body ends with the connection; no server measured here sends one.
            (false, None) if status != 204 => return Err(Garbled),
            (false, None) => State::Head,
        };
        Ok(Some(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `piece` bytes, as the connection does.
    fn read(input: &[u8], piece: usize) -> Result<Vec<Answer>, Garbled> {
        let mut parser = HttpAnswers::default();
        let mut buffer = Vec::new();
        let mut answers = Vec::new();
        for piece in input.chunks(piece) {
            buffer.extend_from_slice(piece);
            loop {
                let step = parser.advance(&buffer)?;
                buffer.drain(..step.consumed);
                match step.answer {
                    Some(answer) => answers.push(answer),
                    None => break,
                }
            }
        }
        assert!(buffer.is_empty(), "{:?}", String::from_utf8_lossy(&buffer));
        Ok(answers)
    }

    const MANY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"OK\"}\
        HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}\
        HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab\r\nc\r\n1F;x=y\r\n0123456789012345678901234567890\r\n0\r\n\r\n\
        HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nsome: trailer\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn answers_are_read_however_they_are_cut() {
        for piece in 1..=MANY.len() {
            let answers = read(MANY, piece).unwrap();
            let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses, [200, 503, 200, 200, 204, 404], "in pieces of {piece}");
            let closes: Vec<_> = answers.iter().map(|answer| answer.closes).collect();
            assert_eq!(closes, [false, true, false, false, false, false]);
        }
    }

    #[test]
    fn what_is_no_answer_is_called_garbled() {
        for input in [
            &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        ] {
            assert_eq!(read(input, 7), Err(Garbled), "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn after_a_reset_the_next_answer_is_read_from_its_beginning() {
        let mut parser = HttpAnswers::default();
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
        assert_eq!(parser.advance(cut).unwrap().answer, None);
        parser.reset();
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(parser.advance(whole).unwrap().answer.unwrap().status, 200);
    }
}
