//! The admin who changes those users, through any node.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::super::{FIRST_CLIENT, Shared, credentials};
use super::{ADMIN_CLIENT, Guest};
use crate::cluster::client::{HttpClient, Reply};
use crate::cluster::net::HostId;
use crate::cluster::node::ADMIN;
use crate::cluster::os;
use crate::cluster::plan::SECOND_US;
use crate::cluster::record::user_name;
use crate::rng::Rng;

/// How long an admin waits for one answer: a removal reads and empties much.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// When all is well, a change that was asked for again and again is carried out by then: a removal that a node left is taken up, or a claim to a name given up, after seconds.
const CARRIED_OUT_US_MAX: u64 = 90 * SECOND_US;

/// What came of one try of a change.
pub enum Told {
    Done,
    Conflict(String),
    Unknown,
    /// Carried out in part or not at all; with what was said.
    Failed(String),
    /// There is no answer, and the request may come later.
    Lost,
    NotSent,
}

pub struct Admin {
    pub shared: Shared,
    pub http: HttpClient,
    rng: Rng,
}

impl Admin {
    pub fn new(shared: Shared, rng: Rng) -> Self {
        let http = HttpClient::new(shared.network.on(HostId(FIRST_CLIENT + ADMIN_CLIENT)), ADMIN_TIMEOUT);
        Self { shared, http, rng }
    }

    /// Whether all is well from now on: the faults have ended, and every node has its place.
    pub fn is_over(&self) -> bool {
        self.shared.stop.load(std::sync::atomic::Ordering::Relaxed) && self.shared.machines.all_have_places()
    }

    /// Through any node. An answer that no admin can be given is an error.
    pub async fn change(&mut self, path: &str, mut body: Json) -> Result<Told, String> {
        body["user"] = credentials(ADMIN);
        let node = self.rng.below(self.shared.plan.nodes.into()) as u8;
        let reply = self.http.call(node, path, &body).await;
        let detail = |body: &Json| body["detail"].as_str().unwrap_or_default().to_owned();
        Ok(match reply {
            Reply::Status(200, _) => Told::Done,
            Reply::Status(404, _) => Told::Unknown,
            Reply::Status(409, body) => Told::Conflict(detail(&body)),
            Reply::Status(500 | 503 | 507, body) => Told::Failed(detail(&body)),
            Reply::Status(status, body) => {
                return Err(format!("node {node} answers an admin's {path} with {status}: {body}"));
            }
            Reply::NotSent(_) => Told::NotSent,
            Reply::NoAnswer(_) => Told::Lost,
        })
    }

    /// Until it is told to be done. Nobody of that name is as good, if an earlier try may have done it.
    pub async fn remove(&mut self, guest: &mut Guest) -> Result<(), String> {
        let name = user_name(guest.user);
        let mut insisting = Insisting::default();
        loop {
            match self.change("/users/remove", json!({"name": name})).await? {
                Told::Done => return Ok(()),
                Told::Unknown if guest.in_doubt => return Ok(()),
                Told::Unknown => return Err(format!("{name} was added, and is not there to be removed")),
                Told::Conflict(_) | Told::Failed(_) => guest.in_doubt = true,
                Told::Lost => (guest.in_doubt, guest.is_lost) = (true, true),
                Told::NotSent => {}
            }
            insisting.pause(self, || format!("{name} is not removed")).await?;
        }
    }
}

/// How long a change is asked for already while all is well.
#[derive(Default)]
pub struct Insisting {
    since_us: Option<u64>,
}

impl Insisting {
    pub async fn pause(&mut self, admin: &mut Admin, why: impl Fn() -> String) -> Result<(), String> {
        let now_us = os::now_us();
        // Once the clients are to stop, the faults have ended.
        if admin.is_over() && now_us - *self.since_us.get_or_insert(now_us) > CARRIED_OUT_US_MAX {
            return Err(format!("all is well, and {}", why()));
        }
        sleep(Duration::from_millis(admin.rng.between(100, 1_000))).await;
        Ok(())
    }
}
