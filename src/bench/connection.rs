//! One connection: an operation at a time, from the moment it is due to its answer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::Xoshiro256PlusPlus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::keys::KeyPicker;
use super::mix::{Mix, Operation};
use super::pacer::Pacer;
use super::protocol::{Answer, Protocol};
use super::record::{Failed, Record};
use super::schedule::Schedule;

/// Read at once.
const INPUT_BYTES: usize = 16 * 1024;
/// The part of an answer that a protocol needs in one piece (a head, a length) is shorter than this.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Between attempts to connect to a server that is gone.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the connections of a thread share, and each clones.
pub struct Work {
    pub schedule: Arc<Schedule>,
    pub mix: Mix,
    pub keys: KeyPicker,
    pub record: Rc<RefCell<Record>>,
}

pub struct Connection<P> {
    address: SocketAddr,
    stream: Option<TcpStream>,
    protocol: P,
    random: Xoshiro256PlusPlus,
    pacer: Pacer,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes at the beginning of `input` that were received and not used.
    filled: usize,
    /// Of the answer under way.
    received_bytes: u64,
    work: Work,
    under_way: UnderWay,
}

/// The operation that has no answer yet; counted when the connection is dropped with it.
struct UnderWay {
    record: Rc<RefCell<Record>>,
    operation: Option<(Operation, Instant, bool)>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((operation, due, measured)) = self.operation.take() {
            let failed = Err(Failed::NoAnswer);
            self.record
                .borrow_mut()
                .ended(operation, failed, due.elapsed(), measured);
        }
    }
}

impl<P: Protocol> Connection<P> {
    pub fn new(
        address: SocketAddr,
        stream: TcpStream,
        protocol: P,
        random: Xoshiro256PlusPlus,
        work: Work,
    ) -> std::io::Result<Self> {
        Ok(Self {
            address,
            stream: Some(stream),
            protocol,
            random,
            pacer: Pacer::new()?,
            output: Vec::new(),
            input: vec![0; INPUT_BYTES],
            filled: 0,
            received_bytes: 0,
            under_way: UnderWay {
                record: work.record.clone(),
                operation: None,
            },
            work,
        })
    }

    /// Carries out operations until the schedule ends.
    pub async fn drive(mut self) -> std::io::Result<()> {
        while let Some(due) = self.work.schedule.next(Instant::now()) {
            self.pacer.wait_until(due).await?;
            let operation = self.work.mix.pick(&mut self.random);
            let measured = self.work.schedule.is_measured(due);
            self.work.record.borrow_mut().begun += u64::from(measured);
            self.under_way.operation = Some((operation, due, measured));
            let sent = Instant::now();
            let outcome = self.exchange(operation).await;
            self.under_way.operation = None;
            if let (Ok(answer), true) = (&outcome, measured) {
                self.work.record.borrow_mut().answered(answer.status, sent.elapsed());
            }
            self.note(operation, outcome, due, measured);
            self.after(outcome).await;
        }
        Ok(())
    }

    fn note(&self, operation: Operation, outcome: Result<Answer, Failed>, due: Instant, measured: bool) {
        let mut record = self.work.record.borrow_mut();
        if measured {
            record.bytes_sent += self.output.len() as u64;
            record.bytes_received += self.received_bytes;
        }
        let status = outcome.map(|answer| answer.status);
        record.ended(operation, status, due.elapsed(), measured);
    }

    async fn after(&mut self, outcome: Result<Answer, Failed>) {
        match outcome {
            Ok(Answer { closes: false, .. }) => {}
            Ok(Answer { closes: true, .. }) => self.disconnect(),
            Err(_) => {
                self.disconnect();
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    fn disconnect(&mut self) {
        self.stream = None;
        self.filled = 0;
        self.protocol.reset();
    }

    async fn exchange(&mut self, operation: Operation) -> Result<Answer, Failed> {
        let key = self.work.keys.pick(&mut self.random);
        let random = self.random.next_u64();
        self.output.clear();
        self.received_bytes = 0;
        self.protocol.request(operation, key, random, &mut self.output);
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address).await.ok_or(Failed::Connection)?,
        };
        stream.write_all(&self.output).await.map_err(|_| Failed::Connection)?;
        let answer = self.answer(&mut stream).await?;
        self.stream = Some(stream);
        Ok(answer)
    }

    async fn answer(&mut self, stream: &mut TcpStream) -> Result<Answer, Failed> {
        loop {
            if self.filled == self.input.len() {
                if self.input.len() >= INPUT_BYTES_MAX {
                    return Err(Failed::Garbled);
                }
                self.input.resize(self.input.len() * 2, 0);
            }
            let free = self.input.get_mut(self.filled..).unwrap_or_default();
            let received = stream.read(free).await.map_err(|_| Failed::Connection)?;
            if received == 0 {
                return Err(Failed::Connection);
            }
            self.received_bytes += received as u64;
            self.filled += received;
            let input = self.input.get(..self.filled).unwrap_or_default();
            let step = self.protocol.advance(input).map_err(|_| Failed::Garbled)?;
            self.input.copy_within(step.consumed..self.filled, 0);
            self.filled -= step.consumed;
            if let Some(answer) = step.answer {
                return Ok(answer);
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.ok()?.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}
