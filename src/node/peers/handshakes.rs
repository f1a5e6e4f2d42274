//! Which handshakes run at once at the peer port.
//!
//! Invariants:
//! - their number is bounded, and more narrowly for each address, or network of them, that is no member's;
//! - strangers take no room from those who connect from a member's address;
//! - where there is no room, a handshake that does not go on gives way to the next one: nobody holds a place by saying nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::meter::Meter;
use crate::types::AddressGroup;

/// Handshakes at once of those at members' addresses, and as many of all others. Each costs some key agreements and a few kilobytes.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// Of one address, or network of them, that is no member's.
pub(super) const STRANGERS_OF_ADDRESS_MAX: usize = 4;
/// An honest handshake is done within this, or is about to be given up by who began it.
const USUAL_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Handshakes(Arc<Mutex<Running>>);

#[derive(Default)]
struct Running {
    next: u64,
    /// By their numbers: the oldest first.
    all: BTreeMap<u64, Handshake>,
}

struct Handshake {
    from: AddressGroup,
    is_member: bool,
    meter: Arc<Meter>,
    began: Instant,
    /// Dropped when it has to end.
    _held: oneshot::Sender<()>,
}

impl Handshake {
    fn may_stay(&self) -> bool {
        self.meter.received() > 0 && self.began.elapsed() < USUAL_MAX
    }
}

/// One handshake's place; free again when dropped.
pub struct Place {
    running: Arc<Mutex<Running>>,
    number: u64,
    held: oneshot::Receiver<()>,
}

impl Handshakes {
    /// A place for a connection from this address; `meter` counts what comes over it. None when all places are in use.
    pub fn begin(&self, from: IpAddr, is_member: bool, meter: Arc<Meter>) -> Option<Place> {
        let from = AddressGroup::of(from);
        let mut running = self.0.lock();
        if !is_member {
            running.make_room(STRANGERS_OF_ADDRESS_MAX, |other| !other.is_member && other.from == from)?;
        }
        running.make_room(HANDSHAKES_MAX, |other| other.is_member == is_member)?;
        let number = running.next;
        running.next += 1;
        let (hold, held) = oneshot::channel();
        let handshake = Handshake {
            from,
            is_member,
            meter,
            began: Instant::now(),
            _held: hold,
        };
        running.all.insert(number, handshake);
        Some(Place {
            running: self.0.clone(),
            number,
            held,
        })
    }
}

impl Running {
    /// Ends one of those `like` it if there are as many as there may be; None if none of them has to give way.
    fn make_room(&mut self, max: usize, like: impl Fn(&Handshake) -> bool) -> Option<()> {
        let alike = || self.all.iter().filter(|(_, other)| like(other));
        if alike().count() >= max {
            let (number, _) = alike().find(|(_, other)| !other.may_stay())?;
            let number = *number;
            self.all.remove(&number);
        }
        Some(())
    }
}

impl Place {
    /// Until it has to be given up.
    pub async fn lost(&mut self) {
        let _ = (&mut self.held).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever has an IPv6 network may connect from as many addresses as they like.
    #[tokio::test(start_paused = true)]
    async fn one_network_has_no_more_than_one_address() {
        let handshakes = Handshakes::default();
        let begin = |text: &str| {
            let meter = Arc::new(Meter::default());
            // Each goes on, and need not give way.
            meter.received.store(1, std::sync::atomic::Ordering::Relaxed);
            handshakes.begin(text.parse().unwrap(), false, meter)
        };
        let held: Vec<_> = (0..STRANGERS_OF_ADDRESS_MAX)
            .map(|host| begin(&format!("2001:db8::{}", host + 1)))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(begin("2001:db8::ffff").is_none());
        assert!(begin("2001:db8:0:1::1").is_some() && begin("10.0.0.1").is_some());
        drop(held);
        assert!(begin("2001:db8::ffff").is_some());
    }
}
