//! Users that come and go while everything goes wrong: one client adds them, writes as them, changes their passwords, removes them while they are written to, and adds
//! the same name again.
//!
//! To the checks a removal that was told to be done is an acknowledged clear of all keys of that user, begun with its first try. The client insists until it is told so. What is
//! not known is which requests without an answer are still on their way: where there was one, the name is given to nobody again.

mod admin;

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use admin::{Admin, Insisting, Told};

use super::{Client, FIRST_CLIENT};
use crate::cluster::client::Reply;
use crate::cluster::history::{Answer, Level, Outcome, Place, What};
use crate::cluster::os;
use crate::cluster::plan::SECOND_US;
use crate::cluster::record::{Asked, user_name};

/// Their numbers; the users of the load have lower ones.
pub const FIRST_GUEST: u8 = 200;
const LAST_GUEST: u8 = 250;
const KEYS: u8 = 2;
/// The machine of the client, and that of the admin, from which wrong passwords come too: a right one is not to wait for these.
pub const GUEST_CLIENT: u8 = 240 - FIRST_CLIENT;
pub const ADMIN_CLIENT: u8 = 241 - FIRST_CLIENT;
/// When all is well, a change that was told to be done has come to every node so long after that.
const HEARD_US_MAX: u64 = 10 * SECOND_US;
/// A login that took longer may have given up on a quorum, and gone by what its node knew.
const QUORUM_READ_US_MAX: u64 = 1_500_000;
/// So often a name is asked for that some node may hold something of.
const UNKNOWN_MAX: u32 = 4;

/// A user that is there for certain.
struct Guest {
    user: u8,
    password: String,
    /// When it was told to be the password.
    since_us: u64,
    /// The one before, and when it was told to be none any more.
    old: Option<(String, u64)>,
    /// Some change of it was asked for more than once.
    in_doubt: bool,
    /// A request that changes it may still be on its way.
    is_lost: bool,
}

/// What is to come of a password.
#[derive(Clone, Copy)]
enum Expect {
    /// It was told to be right at this moment.
    Right(u64),
    /// And to be right no more at this one.
    Wrong(u64),
    Nothing,
}

struct Guests {
    client: Client,
    admin: Admin,
    passwords: u32,
}

/// Until the clients are told to stop; then what is left is read from every node, and removed.
pub async fn run(mut client: Client) -> Result<(), String> {
    let admin = Admin::new(client.shared.clone(), client.rng.fork());
    let mut guests = Guests {
        client,
        admin,
        passwords: 0,
    };
    let mut user = FIRST_GUEST;
    let mut is_new = true;
    while user <= LAST_GUEST {
        let Some(mut guest) = guests.welcome(user, is_new).await? else {
            (user, is_new) = (user + 1, true);
            continue;
        };
        guests.live(&mut guest).await?;
        if guests.admin.is_over() {
            return guests.end(guest).await;
        }
        let began_us = os::now_us();
        let password = guest.password.clone();
        let removal = guests.admin.remove(&mut guest);
        let (removed, ()) = tokio::join!(removal, guests.client.write_on(user, &password));
        removed?;
        guests.client.note_removal(user, began_us);
        is_new = guest.is_lost || guests.client.rng.percent(30);
        user += u8::from(is_new);
    }
    Ok(())
}

impl Guests {
    fn next_password(&mut self, user: u8) -> String {
        self.passwords += 1;
        format!("secret {} of {}", self.passwords, user_name(user))
    }

    /// Nothing if it cannot be had for now. One password for all tries, so that it is known whichever is carried out.
    async fn welcome(&mut self, user: u8, is_new: bool) -> Result<Option<Guest>, String> {
        let password = self.next_password(user);
        let name = user_name(user);
        let mut guest = Guest {
            user,
            password: password.clone(),
            since_us: 0,
            old: None,
            in_doubt: false,
            is_lost: false,
        };
        let mut insisting = Insisting::default();
        let mut unknown = 0;
        loop {
            match self
                .admin
                .change("/users/add", json!({"name": name, "password_hash": password}))
                .await?
            {
                Told::Done => break,
                Told::Conflict(why) if why.contains("exists already") => match guest.in_doubt {
                    true => break,
                    false => return Err(format!("{name} was not there, and cannot be added: {why}")),
                },
                Told::Conflict(why) if why.contains("something is stored") => {
                    if is_new && !guest.in_doubt {
                        return Err(format!("nobody was {name} before: {why}"));
                    }
                    // A request that was on its way while its user was removed left it.
                    let began_us = os::now_us();
                    guest.in_doubt = true;
                    self.admin.remove(&mut guest).await?;
                    self.client.note_removal(user, began_us);
                    return Ok(None);
                }
                Told::Failed(why) if why.contains("a node is away") => unknown += 1,
                Told::Conflict(_) | Told::Failed(_) => guest.in_doubt = true,
                Told::Unknown => return Err(format!("to add {name} is answered 404")),
                Told::Lost => (guest.in_doubt, guest.is_lost) = (true, true),
                Told::NotSent => {}
            }
            if unknown == UNKNOWN_MAX && !guest.in_doubt {
                return Ok(None);
            }
            insisting
                .pause(&mut self.admin, || format!("{name} is not added"))
                .await?;
        }
        guest.since_us = os::now_us();
        Ok(Some(guest))
    }

    /// Some writes and reads, and now and then a new password.
    async fn live(&mut self, guest: &mut Guest) -> Result<(), String> {
        for _ in 0..self.client.rng.between(3, 14) {
            if self.admin.is_over() {
                break;
            }
            self.client.think().await;
            let place = self.client.draw_guest_place(guest.user);
            match self.client.rng.below(100) {
                0..60 => {
                    let what = self.client.draw_guest_add();
                    let expect = Expect::Right(guest.since_us);
                    self.client.ask_as(place, what, &guest.password, expect).await;
                }
                60..75 => {
                    let expect = Expect::Right(guest.since_us);
                    self.client.ask_as(place, What::Get, &guest.password, expect).await;
                }
                // After one that may come later, no other.
                75..85 if !guest.in_doubt => self.change_password(guest).await?,
                _ => {
                    if let Some((old, until_us)) = guest.old.clone() {
                        self.try_wrong(place, &old, until_us).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn change_password(&mut self, guest: &mut Guest) -> Result<(), String> {
        let password = self.next_password(guest.user);
        let name = user_name(guest.user);
        let mut insisting = Insisting::default();
        loop {
            match self
                .admin
                .change("/users/passwd", json!({"name": name, "password_hash": password}))
                .await?
            {
                Told::Done => break,
                Told::Unknown => return Err(format!("{name} was added, and a new password is answered 404")),
                Told::Conflict(why) => {
                    return Err(format!("nobody removes {name}, and a new password is answered: {why}"));
                }
                Told::Failed(_) => guest.in_doubt = true,
                Told::Lost => (guest.in_doubt, guest.is_lost) = (true, true),
                Told::NotSent => {}
            }
            insisting
                .pause(&mut self.admin, || format!("{name} has no new password"))
                .await?;
        }
        guest.since_us = os::now_us();
        guest.old = Some((std::mem::replace(&mut guest.password, password), guest.since_us));
        Ok(())
    }

    /// Comes from another address than the right ones, which have to wait for it else.
    async fn try_wrong(&mut self, place: Place, password: &str, until_us: u64) {
        std::mem::swap(&mut self.client.http, &mut self.admin.http);
        self.client
            .ask_as(place, What::Get, password, Expect::Wrong(until_us))
            .await;
        std::mem::swap(&mut self.client.http, &mut self.admin.http);
    }

    /// All faults are over: every node gives the same to the right password alone; and to nobody anything, once the user is removed.
    async fn end(&mut self, mut guest: Guest) -> Result<(), String> {
        if !guest.in_doubt {
            self.change_password(&mut guest).await?;
        }
        self.compare_replicas(&guest).await?;
        if let Some((old, _)) = &guest.old.clone() {
            self.wait_until_refused(guest.user, old).await?;
        }
        let began_us = os::now_us();
        self.admin.remove(&mut guest).await?;
        self.client.note_removal(guest.user, began_us);
        match guest.is_lost {
            true => Ok(()),
            false => self.wait_until_refused(guest.user, &guest.password).await,
        }
    }

    async fn wait_until_refused(&mut self, user: u8, password: &str) -> Result<(), String> {
        let begun_us = os::now_us();
        for node in 0..self.admin.shared.plan.nodes {
            loop {
                let body = json!({"key": "key-0", "user": {"user_id": user_name(user), "password_hash": password}});
                let reply = self.admin.http.call(node, "/get_value", &body).await;
                if let Reply::Status(401, _) = reply {
                    break;
                }
                if os::now_us() - begun_us > HEARD_US_MAX {
                    return Err(format!(
                        "all is well, and node {node} answers an old password of {}: {reply:?}",
                        user_name(user)
                    ));
                }
                sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }

    async fn compare_replicas(&mut self, guest: &Guest) -> Result<(), String> {
        let begun_us = os::now_us();
        for key in 0..KEYS {
            let place = Place { user: guest.user, key };
            loop {
                let mut reads = Vec::new();
                for node in 0..self.admin.shared.plan.nodes {
                    let mut asked = self.client.draw_op(place, What::Get);
                    (asked.node, asked.level, asked.is_last) = (node, Level::One, true);
                    let began_us = os::now_us();
                    let outcome = self
                        .client
                        .outcome_as(&asked, &guest.password, Expect::Right(guest.since_us))
                        .await;
                    reads.push((asked, began_us, outcome));
                }
                let is_answered = |outcome: &Outcome| matches!(outcome, Outcome::Answered(_));
                if reads
                    .iter()
                    .all(|(_, _, outcome)| is_answered(outcome) && *outcome == reads[0].2)
                {
                    for (asked, began_us, outcome) in reads {
                        self.client.shared.recorder.end(asked, began_us, outcome);
                    }
                    break;
                }
                if os::now_us() - begun_us > self.admin.shared.plan.converge_us {
                    let told: Vec<_> = reads.iter().map(|(asked, _, outcome)| (asked.node, outcome)).collect();
                    return Err(format!("the nodes are not alike in the end on {place:?}: {told:?}"));
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }
}

impl Client {
    async fn think(&mut self) {
        let think_ms = self.rng.below(self.shared.plan.load.think_ms_max + 1);
        sleep(Duration::from_millis(think_ms)).await;
    }

    fn draw_guest_place(&mut self, user: u8) -> Place {
        let key = self.rng.below(KEYS.into()) as u8;
        Place { user, key }
    }

    fn draw_guest_add(&mut self) -> What {
        let bytes = self.rng.below(self.shared.plan.load.text_bytes_max.min(100));
        What::Add {
            text: self.shared.recorder.new_text(bytes),
            finish: !self.rng.percent(20),
        }
    }

    /// While the user is removed: whether one is taken depends on how far that is.
    async fn write_on(&mut self, user: u8, password: &str) {
        for _ in 0..self.rng.between(0, 5) {
            let place = self.draw_guest_place(user);
            let what = self.draw_guest_add();
            self.ask_as(place, what, password, Expect::Nothing).await;
            sleep(Duration::from_millis(self.rng.below(30))).await;
        }
    }

    /// It was told to be done just now.
    fn note_removal(&mut self, user: u8, began_us: u64) {
        for key in 0..KEYS {
            let mut asked = self.draw_op(Place { user, key }, What::Clear);
            (asked.level, asked.with_id) = (Level::Quorum, false);
            self.shared.recorder.end(asked, began_us, Outcome::Answered(Answer::Ok));
        }
    }

    async fn ask_as(&mut self, place: Place, what: What, password: &str, expect: Expect) {
        let asked = self.draw_op(place, what);
        let began_us = os::now_us();
        let outcome = self.outcome_as(&asked, password, expect).await;
        self.shared.recorder.end(asked, began_us, outcome);
    }

    async fn outcome_as(&mut self, asked: &Asked, password: &str, expect: Expect) -> Outcome {
        let (path, mut body) = self.shared.recorder.request(asked);
        body["user"] = json!({"user_id": user_name(asked.place.user), "password_hash": password});
        let began_us = os::now_us();
        let reply = self.http.call(asked.node, path, &body).await;
        let now_us = os::now_us();
        let garbled = |why: &str| Outcome::Answered(Answer::Garbled(format!("{why}: {password:?}, {reply:?}")));
        match (&reply, expect) {
            (Reply::Status(401, _), Expect::Right(since_us))
                if now_us - began_us < QUORUM_READ_US_MAX && self.is_quiet_since(since_us) =>
            {
                garbled("the right password is refused")
            }
            (Reply::Status(401, _), _) => Outcome::Refused("the password is wrong".to_owned()),
            (Reply::Status(200, _), Expect::Wrong(until_us))
                if began_us - until_us > HEARD_US_MAX && self.is_quiet_since(until_us) =>
            {
                garbled("an old password is taken")
            }
            _ => self.shared.recorder.outcome(&asked.what, &reply),
        }
    }

    /// Whether every node could ask a quorum and be told of every change since.
    fn is_quiet_since(&self, since_us: u64) -> bool {
        let mut is_quiet = !self.shared.plan.bounds.are_tight;
        self.shared.recorder.change(|history| {
            let ended = history.troubles.iter().map(|trouble| trouble.to_us);
            let mut ended = ended.chain(history.cuts_us.iter().map(|cut_us| cut_us + 3 * SECOND_US));
            is_quiet &= history.lost_disks.is_empty() && ended.all(|to_us| to_us < since_us);
        });
        is_quiet
    }
}
