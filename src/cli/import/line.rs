//! From JSON Lines to adds, however long a line is.
//!
//! Invariant: nothing of a line is given out before the whole line was found right, unless the line is longer than
//! `LINE_HELD_BYTES`; and memory is bounded by that.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use crate::client::{DecodeError, PART_BYTES_MAX, ValueDecoder, ValuePiece};

/// So much of a line is held back until the line was found right.
pub const LINE_HELD_BYTES: usize = 4 * 1024 * 1024;
/// What some editors begin a file with: the byte order mark, in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// What an add costs beside its text.
const OP_OVERHEAD_BYTES: usize = 128;

/// One add: a value, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOp {
    pub line: u64,
    /// Which add of its line it is.
    pub index: u64,
    pub key: String,
    pub text: String,
    pub finish: bool,
    /// A value in one piece, which may share a batch with others.
    pub whole: bool,
}

impl ImportOp {
    pub fn cost_bytes(&self) -> usize {
        self.key.len() + self.text.len() + OP_OVERHEAD_BYTES
    }

    /// The same for the same add of the same import, and for no other.
    pub fn request_id(&self, import_id: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in [import_id, &self.key, &self.text] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&self.line.to_le_bytes());
        hasher.update(&self.index.to_le_bytes());
        hasher.update(&[u8::from(self.finish)]);
        format!("import/{}", hasher.finalize().to_hex())
    }
}

/// A place in the file where a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub lines: u64,
    pub offset_bytes: u64,
    /// BLAKE3 of everything before.
    pub digest: blake3::Hash,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Op(ImportOp),
    LineEnd(Position),
}

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("line {line} is not {{\"key\":…,\"value\":[…]}}: {what}{}", if *.given { "; its beginning was stored already" } else { "" })]
    Wrong {
        line: u64,
        what: String,
        /// Whether adds of this line were given out.
        given: bool,
    },
    #[error("cannot read line {line}")]
    Read { line: u64, source: io::Error },
}

/// The lines of a file as adds.
pub struct ImportLines<R> {
    source: R,
    hasher: blake3::Hasher,
    lines: u64,
    offset_bytes: u64,
    mark: Mark,
    line: Line,
    ready: VecDeque<Event>,
    ended: bool,
}

/// How much of the mark that may stand at the beginning came so far.
struct Mark(usize);

impl Mark {
    /// What the line gets of the next bytes of the source; none are at its end.
    fn skip<'a>(&mut self, bytes: &'a [u8]) -> [&'a [u8]; 2] {
        let (came, due) = MARK.split_at(self.0);
        let matching = bytes.iter().zip(due).take_while(|(byte, due)| byte == due).count();
        if matching == due.len() {
            self.0 = MARK.len();
            return [&[], bytes.get(matching..).unwrap_or_default()];
        }
        if matching == bytes.len() && !bytes.is_empty() {
            self.0 += matching;
            return [&[], &[]];
        }
        self.0 = MARK.len();
        [came, bytes]
    }
}

impl<R: BufRead> ImportLines<R> {
    /// `source` stands after `lines` lines, which are `offset_bytes` long and went through `hasher`.
    pub fn new(source: R, hasher: blake3::Hasher, lines: u64, offset_bytes: u64) -> Self {
        Self {
            source,
            hasher,
            lines,
            offset_bytes,
            mark: Mark(if offset_bytes == 0 { 0 } else { MARK.len() }),
            line: Line::default(),
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// Where the source stands.
    pub fn position(&self) -> Position {
        Position {
            lines: self.lines,
            offset_bytes: self.offset_bytes,
            digest: self.hasher.finalize(),
        }
    }

    pub fn next(&mut self) -> Result<Option<Event>, LineError> {
        while self.ready.is_empty() && !self.ended {
            self.read_some()?;
        }
        Ok(self.ready.pop_front())
    }

    fn read_some(&mut self) -> Result<(), LineError> {
        let line = self.lines + 1;
        let chunk = match self.source.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(source) => return Err(LineError::Read { line, source }),
            Ok(chunk) => chunk,
        };
        let at_end = chunk.is_empty();
        let newline = chunk.iter().position(|byte| *byte == b'\n');
        let bytes = chunk
            .get(..newline.map_or(chunk.len(), |at| at + 1))
            .unwrap_or_default();
        let taken = bytes.len();
        self.hasher.update(bytes);
        let [mark, bytes] = self.mark.skip(bytes);
        let fed = self.line.feed(mark, line).and_then(|()| self.line.feed(bytes, line));
        self.source.consume(taken);
        self.offset_bytes += taken as u64;
        let given = self.line.given;
        fed.map_err(|what| LineError::Wrong { line, what, given })?;
        if newline.is_some() || (at_end && !self.line.blank) {
            self.end_line(line)?;
        } else if self.line.held_bytes > LINE_HELD_BYTES {
            self.ready.extend(self.line.give().map(Event::Op));
        }
        self.ended = at_end;
        Ok(())
    }

    fn end_line(&mut self, line: u64) -> Result<(), LineError> {
        let mut done = std::mem::take(&mut self.line);
        let given = done.given;
        done.finish().map_err(|what| LineError::Wrong { line, what, given })?;
        self.ready.extend(done.give().map(Event::Op));
        self.lines = line;
        self.ready.push_back(Event::LineEnd(self.position()));
        Ok(())
    }
}

/// The line at hand.
struct Line {
    decoder: ValueDecoder,
    /// Pieces that came before the key.
    keyless: Vec<ValuePiece>,
    /// The value at hand, as far as it is no add yet.
    value: String,
    /// Whether parts of the value at hand are adds already.
    cut: bool,
    ops: Vec<ImportOp>,
    next_index: u64,
    held_bytes: usize,
    given: bool,
    blank: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            decoder: ValueDecoder::new(),
            keyless: Vec::new(),
            value: String::new(),
            cut: false,
            ops: Vec::new(),
            next_index: 0,
            held_bytes: 0,
            given: false,
            blank: true,
        }
    }
}

impl Line {
    fn feed(&mut self, bytes: &[u8], line: u64) -> Result<(), String> {
        self.blank &= bytes.iter().all(u8::is_ascii_whitespace);
        let mut pieces = Vec::new();
        self.decoder.feed(bytes, &mut pieces).map_err(explain)?;
        if self.decoder.key().is_none() {
            self.held_bytes += pieces
                .iter()
                .map(|piece| piece.text.len() + OP_OVERHEAD_BYTES)
                .sum::<usize>();
            self.keyless.append(&mut pieces);
            if self.held_bytes > LINE_HELD_BYTES {
                return Err("\"key\" must come before \"value\" in a line this long".to_owned());
            }
            return Ok(());
        }
        for piece in std::mem::take(&mut self.keyless).into_iter().chain(pieces) {
            self.take(piece, line);
        }
        Ok(())
    }

    fn take(&mut self, piece: ValuePiece, line: u64) {
        self.value.push_str(&piece.text);
        while self.value.len() > PART_BYTES_MAX {
            let rest = self.value.split_off(self.value.floor_char_boundary(PART_BYTES_MAX));
            let text = std::mem::replace(&mut self.value, rest);
            self.cut = true;
            self.push(line, text, false);
        }
        if piece.ends_value {
            let text = std::mem::take(&mut self.value);
            self.push(line, text, true);
            self.cut = false;
        }
    }

    fn push(&mut self, line: u64, text: String, finish: bool) {
        let op = ImportOp {
            line,
            index: self.next_index,
            key: self.decoder.key().unwrap_or_default().to_owned(),
            text,
            finish,
            whole: !self.cut,
        };
        self.next_index += 1;
        self.held_bytes += op.cost_bytes();
        self.ops.push(op);
    }

    fn give(&mut self) -> impl Iterator<Item = ImportOp> + use<> {
        self.held_bytes = 0;
        self.given |= !self.ops.is_empty();
        std::mem::take(&mut self.ops).into_iter()
    }

    fn finish(&self) -> Result<(), String> {
        if self.blank {
            return Ok(());
        }
        self.decoder.finish().map_err(explain)?;
        match self.decoder.key() {
            None => Err("there is no \"key\"".to_owned()),
            Some("") => Err("\"key\" is empty".to_owned()),
            Some(_) => Ok(()),
        }
    }
}

fn explain(error: DecodeError) -> String {
    format!("{error} of the line")
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
