//! Redis' protocol: lists with `RPUSH key value` and `LRANGE key 0 -1`.

use kv_storage::bench::{Answer, Garbled, Operation, Payload, Protocol, Step};

pub struct Redis {
    payload: Payload,
    answers: RespAnswers,
}

impl Redis {
    pub fn new(payload: Payload) -> Self {
        Self {
            payload,
            answers: RespAnswers::default(),
        }
    }
}

impl Protocol for Redis {
    fn request(&mut self, operation: Operation, key: u64, random: u64, out: &mut Vec<u8>) {
        let key_length = self.payload.key_bytes();
        match operation {
            Operation::Add => {
                head(out, "*3\r\n$5\r\nRPUSH\r\n$", key_length);
                self.payload.push_key(key, out);
                head(out, "\r\n$", self.payload.value_bytes());
                out.extend_from_slice(self.payload.value(random));
            }
            Operation::Get => {
                head(out, "*4\r\n$6\r\nLRANGE\r\n$", key_length);
                self.payload.push_key(key, out);
                out.extend_from_slice(b"\r\n$1\r\n0\r\n$2\r\n-1");
            }
            Operation::Clear => {
                head(out, "*2\r\n$3\r\nDEL\r\n$", key_length);
                self.payload.push_key(key, out);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        self.answers.advance(input)
    }

    fn reset(&mut self) {
        self.answers = RespAnswers::default();
    }
}

fn head(out: &mut Vec<u8>, text: &str, length: usize) {
    out.extend_from_slice(text.as_bytes());
    // As cheap as a formatter, and without an allocation.
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = length;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
    out.extend_from_slice(b"\r\n");
}

/// Reads answers: a status, an error, a number, a text, or a list of those.
#[derive(Debug, Default)]
struct RespAnswers {
    /// Elements that are to come, while an answer is under way.
    left: Option<u64>,
    /// Bytes of a text that are to come, with its line end.
    text: u64,
    failed: bool,
}

impl RespAnswers {
    fn advance(&mut self, input: &[u8]) -> Result<Step, Garbled> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            if self.text > 0 {
                let used = self.text.min(rest.len() as u64);
                self.text -= used;
                consumed += used as usize;
                if self.text > 0 {
                    return Ok(Step { consumed, answer: None });
                }
            } else if self.left != Some(0) {
                let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                    return Ok(Step { consumed, answer: None });
                };
                self.line(&rest[..end])?;
                consumed += end + 2;
            }
            if self.left == Some(0) && self.text == 0 {
                let status = if self.failed { 500 } else { 200 };
                *self = Self::default();
                let answer = Some(Answer { status, closes: false });
                return Ok(Step { consumed, answer });
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Garbled> {
        let (kind, rest) = line.split_first().ok_or(Garbled)?;
        let number = || -> Result<i64, Garbled> {
            let text = std::str::from_utf8(rest).map_err(|_| Garbled)?;
            text.parse().map_err(|_| Garbled)
        };
        let left = self.left.unwrap_or(1);
        match kind {
            b'+' | b':' => self.left = Some(left - 1),
            b'-' => {
                self.failed = true;
                self.left = Some(left - 1);
            }
            b'$' => {
                // -1 stands for none.
                self.text = u64::try_from(number()?).map_or(0, |bytes| bytes + 2);
                self.left = Some(left - 1);
            }
            b'*' => self.left = Some(left - 1 + u64::try_from(number()?).unwrap_or(0)),
            _ => return Err(Garbled),
        }
        Ok(())
    }
}
