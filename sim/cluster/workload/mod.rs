//! What the clients do: users are made, every client goes on by itself until it is told to stop, and in the end all replicas are
//! compared.

mod batch;
mod draw;
pub mod guests;
pub mod operator;
mod setup;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::audit;
use super::client::{HttpClient, NO_ANSWER};
use super::history::{Answer, Outcome, Place, What};
use super::lie::{Lie, Memory};
use super::listing::Listing;
use super::net::{HostId, Network};
use super::node::{ADMIN, password};
use super::os;
use super::plan::{Plan, SECOND_US, Topology};
use super::product::ProductClient;
use super::record::{Asked, Recorder, key_name, user_name};
use super::scale::{Order, Row, Serving};
use crate::rng::Rng;

use operator::{Machines, Operator};

/// The machines of the clients: beyond those of the nodes. The auditor makes the users and compares the replicas.
pub const FIRST_CLIENT: u8 = 100;
const AUDITOR: u8 = 250;
const AUDITOR_ID: u8 = AUDITOR - FIRST_CLIENT;
/// Asks the nodes for their metrics.
const WATCHER: u8 = 251;
/// How long the auditor waits for one list, however long it is and slow the network.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest deadline of a call in haste. When a front asks a second replica, some are over and some are not.
const HASTY_MS_MAX: u64 = 400;
/// Of a hundred calls, so many come with the password of another user. Few enough that no right one has to wait for it.
const FORGED_PERCENT: u64 = 2;
const SETUP_US_MAX: u64 = 40 * SECOND_US;
/// A client sends one of so many again.
const DONE_MAX: usize = 20;

/// What the clients and the world tell each other.
#[derive(Clone)]
pub struct Shared {
    pub plan: Arc<Plan>,
    pub network: Network,
    pub recorder: Recorder,
    /// The clients are to end.
    pub stop: Arc<AtomicBool>,
    /// Users are there, faults may begin.
    pub is_set_up: Arc<AtomicBool>,
    /// Of the script of `scale`.
    pub serving: Serving,
    pub orders: Arc<std::sync::Mutex<Vec<Order>>>,
    pub row: Arc<std::sync::Mutex<Option<Row>>>,
    pub machines: Machines,
    /// All is done; with what went wrong, if anything did.
    pub verdict: Arc<std::sync::Mutex<Option<Result<(), String>>>>,
}

impl Shared {
    pub fn order(&self, order: Order) {
        self.orders().push(order);
    }

    pub fn orders(&self) -> std::sync::MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub fn machines(plan: &Plan) -> impl Iterator<Item = HostId> {
    (0..plan.load.clients)
        .map(|client| HostId(FIRST_CLIENT + client))
        .chain([HostId(AUDITOR), HostId(WATCHER)])
        .chain(
            plan.has_guests
                .then_some([guests::GUEST_CLIENT, guests::ADMIN_CLIENT])
                .into_iter()
                .flatten()
                .map(|id| HostId(FIRST_CLIENT + id)),
        )
        .chain(operator::machine(plan))
}

pub fn credentials(user: &str) -> Json {
    json!({"user_id": user, "password_hash": password(user)})
}

pub fn home(plan: &Plan, place: Place) -> u8 {
    (place.user.wrapping_mul(31) ^ place.key) % plan.nodes
}

/// The whole run, from the clients' side.
pub async fn run(shared: Shared, mut rng: Rng) {
    let verdict = run_to_the_end(&shared, &mut rng).await;
    *shared.verdict.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(verdict);
}

async fn run_to_the_end(shared: &Shared, rng: &mut Rng) -> Result<(), String> {
    let mut auditor = Client::new(shared, AUDITOR_ID, rng.fork());
    auditor.set_up().await?;
    shared.is_set_up.store(true, Relaxed);
    let clients: Vec<_> = (0..shared.plan.load.clients)
        .map(|client| tokio::spawn(Client::new(shared, client, rng.fork()).work()))
        .collect();
    let watcher = tokio::spawn(audit::watch(Client::new(shared, WATCHER - FIRST_CLIENT, rng.fork())));
    let guests = shared.plan.has_guests.then(|| {
        let client = Client::new(shared, guests::GUEST_CLIENT, rng.fork());
        tokio::spawn(guests::run(client))
    });
    let operate = || tokio::spawn(Operator::new(shared, rng.fork()).run());
    let operator = shared.plan.has_operator().then(operate);
    for client in clients {
        client.await.map_err(|error| format!("a client ended badly: {error}"))?;
    }
    if let Some(operator) = operator {
        operator
            .await
            .map_err(|error| format!("the operator ended badly: {error}"))??;
    }
    watcher.abort();
    auditor.audit(guests).await
}

pub struct Client {
    pub shared: Shared,
    id: u8,
    pub http: HttpClient,
    /// Asked in place of `http`, if there is one.
    product: Option<ProductClient>,
    pub rng: Rng,
    pub memory: Memory,
    /// The last ones that were answered and carry request ids; of this hour, the next one may have forgotten them.
    done: VecDeque<Asked>,
    hours: usize,
}

impl Client {
    fn new(shared: &Shared, id: u8, mut rng: Rng) -> Self {
        let deadline = match id {
            AUDITOR_ID => AUDIT_TIMEOUT,
            _ => Duration::from_millis(shared.plan.load.timeout_ms),
        };
        let net = || shared.network.on(HostId(FIRST_CLIENT + id));
        let is_product = id < shared.plan.product.clients;
        let product = is_product.then(|| ProductClient::new(&shared.plan, net(), shared.recorder.clone(), &mut rng));
        Self {
            shared: shared.clone(),
            id,
            http: HttpClient::new(net(), deadline),
            product,
            rng,
            memory: Memory::default(),
            done: VecDeque::new(),
            hours: 0,
        }
    }

    /// Until it is told to stop.
    async fn work(mut self) {
        let think_ms_max = self.shared.plan.load.think_ms_max;
        while !self.shared.stop.load(Relaxed) {
            let think_ms = self.rng.below(think_ms_max + 1);
            sleep(Duration::from_millis(think_ms)).await;
            if self.product.is_some() && self.rng.percent(self.shared.plan.product.in_parts_percent) {
                self.add_in_parts().await;
            } else if self.rng.percent(self.shared.plan.load.batch_percent) {
                self.batch().await;
            } else {
                self.one_op().await;
            }
        }
    }

    /// Whether an hour has passed since this was asked last.
    fn has_hour_passed(&mut self) -> bool {
        let hours = self.shared.recorder.hours();
        std::mem::replace(&mut self.hours, hours) != hours
    }

    async fn one_op(&mut self) {
        if self.has_hour_passed() {
            self.done.clear();
        }
        if !self.done.is_empty() && self.rng.percent(self.shared.plan.load.again_percent) {
            return self.once_again().await;
        }
        let place = self.draw_place();
        let what = match self.draw_what() {
            // A listing is of all keys, and these have different homes.
            What::List(_) if self.shared.plan.topology == Topology::Separate && self.shared.plan.nodes > 1 => What::Get,
            what if self.product.is_none() && self.rng.percent(FORGED_PERCENT) => What::Forged(Box::new(what)),
            what => what,
        };
        if let What::List(listing) = what {
            return self.list_page_by_page(place, listing).await;
        }
        let mut asked = self.draw_op(place, what);
        asked.with_id &= self.rng.percent(85);
        let attempts = if asked.with_id {
            self.rng.between(1, self.shared.plan.load.attempts_max)
        } else {
            1
        };
        for attempt in 0..attempts {
            if attempt > 0 {
                sleep(Duration::from_millis(self.rng.between(1, 300))).await;
                asked.node = self.draw_node(place);
                if self.has_hour_passed() {
                    self.done.clear();
                    return;
                }
            }
            if self.attempt(&asked).await {
                if asked.with_id {
                    self.done.push_back(asked);
                    if self.done.len() > DONE_MAX {
                        self.done.pop_front();
                    }
                }
                return;
            }
        }
    }

    /// A request that was answered comes again, as if the answer had been lost: some time later, through any node.
    async fn once_again(&mut self) {
        let nth = self.rng.below(self.done.len() as u64) as usize;
        let mut asked = self.done[nth].clone();
        asked.node = self.draw_node(asked.place);
        self.attempt(&asked).await;
    }

    /// To the end of the listing, each page through the same node at the same level.
    async fn list_page_by_page(&mut self, place: Place, mut listing: Listing) {
        let (node, level) = (self.draw_node(place), self.draw_level());
        loop {
            let mut asked = self.draw_op(place, What::List(listing));
            (asked.node, asked.level) = (node, level);
            let answer = self.attempt_for(&asked).await;
            let Some(next) = answer.and_then(|answer| next_page(listing.after, &answer)) else {
                return;
            };
            listing.after = Some(next);
        }
    }

    /// Whether it was answered.
    pub async fn attempt(&mut self, asked: &Asked) -> bool {
        self.attempt_for(asked).await.is_some()
    }

    pub async fn attempt_for(&mut self, asked: &Asked) -> Option<Answer> {
        let began_us = os::now_us();
        let outcome = match &self.product {
            Some(product) => {
                let in_haste = self.rng.percent(self.shared.plan.load.hasty_percent);
                let deadline_ms = in_haste.then(|| self.rng.between(1, HASTY_MS_MAX));
                product.ask(asked, deadline_ms).await
            }
            None => self.ask_with_body(asked).await,
        };
        let answer = match &outcome {
            Outcome::Answered(answer) => Some(answer.clone()),
            _ => None,
        };
        self.shared.recorder.end(asked.clone(), began_us, outcome);
        answer
    }

    async fn ask_with_body(&mut self, asked: &Asked) -> Outcome {
        let (mut path, mut body) = self.shared.recorder.request(asked);
        // Each way in asks for the password by itself. (Which one is not drawn, so that old seeds stay what they were.)
        if is_forged_batch(asked) {
            (path, body) = (
                "/batch",
                json!({"operations": [batch::operation(&self.shared.recorder, asked)]}),
            );
        }
        body["user"] = credentials(&user_name(asked.place.user));
        if self.id != AUDITOR_ID && self.rng.percent(self.shared.plan.load.hasty_percent) {
            body["deadline_ms"] = self.rng.between(1, HASTY_MS_MAX).into();
        }
        if let What::Forged(_) = asked.what {
            let other = match self.shared.plan.load.users {
                1 => ADMIN.to_owned(),
                users => user_name((asked.place.user + 1) % users),
            };
            body["user"]["password_hash"] = password(&other).into();
        }
        match self.shared.plan.planted {
            None => self.ask(asked, path, &body).await,
            Some(lie) => self.ask_a_liar(lie, asked, path, &body).await,
        }
    }

    pub async fn ask(&mut self, asked: &Asked, path: &str, body: &Json) -> Outcome {
        let reply = self.http.call(asked.node, path, body).await;
        self.shared.recorder.outcome(&asked.what, &reply)
    }

    async fn ask_a_liar(&mut self, lie: Lie, asked: &Asked, path: &str, body: &Json) -> Outcome {
        let is_add = matches!(asked.what, What::Add { .. });
        match lie {
            Lie::AckWithoutWrite if is_add && Lie::is_now(&mut self.rng) => return Outcome::Answered(Answer::Ok),
            Lie::NeverAnswered if Lie::is_now(&mut self.rng) => {
                sleep(Duration::from_millis(self.shared.plan.load.timeout_ms)).await;
                return Outcome::Unknown(NO_ANSWER.to_owned());
            }
            Lie::WrittenTwice if is_add => {
                let mut once_more = body.clone();
                once_more["request_id"] = Json::Null;
                self.http.call(asked.node, path, &once_more).await;
            }
            _ => {}
        }
        let outcome = self.ask(asked, path, body).await;
        self.memory.tell(lie, &mut self.rng, asked, outcome)
    }
}

/// Half of those that a batch can hold come as a batch of one.
fn is_forged_batch(asked: &Asked) -> bool {
    let What::Forged(forged) = &asked.what else {
        return false;
    };
    asked.op.is_multiple_of(2) && !matches!(**forged, What::List(_))
}

/// What the next page of a listing begins behind: none after the last one, nor after one from which no way leads on.
pub fn next_page(after: Option<u8>, page: &Answer) -> Option<u8> {
    let Answer::Keys { next: Some(next), .. } = page else {
        return None;
    };
    let leads_on = after.is_none_or(|after| key_name(after) < key_name(*next));
    leads_on.then_some(*next)
}
