//! Standard output, which carries results.

use std::io::{self, BufWriter, StdoutLock, Write};

/// Bytes of output that are gathered for one write.
const OUTPUT_BUFFER_BYTES: usize = 64 * 1024;

pub fn output() -> BufWriter<Output> {
    BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, Output(io::stdout().lock()))
}

/// Says, where it cannot be written, that it was this: a full disk here would pass for one of the node.
pub struct Output(StdoutLock<'static>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

fn unwritten(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}
