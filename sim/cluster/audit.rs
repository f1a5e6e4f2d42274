//! What is asked of the nodes beside the load: their metrics on the way; and in the end that all replicas are alike, that all nodes take
//! writes again and are idle, and that cleared space comes free.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::{Answer, Figures, Level, Outcome, Place, What};
use super::listing::Listing;
use super::os;
use super::plan::{SECOND_US, Topology};
use super::record::{Asked, user_name};
use super::scale::Order;
use super::workload::{Client, credentials, home, next_page};

/// Until what was under way has ended.
const SETTLE: Duration = Duration::from_millis(1_500);
/// All may be compared so often at least, as a comparison takes its time on a slow network.
const COMPARISONS_MIN: u32 = 3;
/// Writes are taken again by then: a full disk is looked at once a second.
const TAKEN_US_MAX: u64 = 10 * SECOND_US;
/// What sealing, merging and hearing of it from all replicas take, besides the time after which a shard is idle.
const RECLAIM_MS: u64 = 15_000;
/// What was carried out at the last moment has come to all replicas by then.
const SPREAD_US: u64 = 2 * SECOND_US;
/// Of so many keys, pages and counts are read.
const PLACES_MAX: usize = 12;
/// A list is read in so many pages at most.
const PAGES_MAX: u64 = 4;
/// How many slots of a node do not count in a quorum.
pub const UNSYNCED: &str = "kv_unsynced_slots";
/// Of `/metrics`, what is kept.
const WATCHED: [&str; 9] = [
    UNSYNCED,
    "kv_shard_waiting_requests",
    "kv_shard_frozen_memtables",
    "kv_shard_segment_bytes",
    "kv_peer_waiting_requests",
    "kv_peer_waiting_bytes",
    "kv_http_requests_in_flight",
    "kv_http_body_in_flight_bytes",
    "kv_http_open_connections",
];

/// Looks at all nodes' metrics again and again.
pub async fn watch(mut client: Client) {
    loop {
        sleep(Duration::from_millis(client.shared.plan.watch_ms)).await;
        client.look_at_metrics(false).await;
    }
}

/// The highest value of each watched metric.
fn watched(page: &str) -> BTreeMap<String, u64> {
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    for line in page.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = name.split('{').next().unwrap_or_default();
        if let (true, Ok(value)) = (WATCHED.contains(&name), value.parse::<u64>()) {
            let highest = values.entry(name.to_owned()).or_default();
            *highest = value.max(*highest);
        }
    }
    values
}

/// The client of its own users, while it is at it.
pub type Guests = JoinHandle<Result<(), String>>;

impl Client {
    async fn look_at_metrics(&mut self, idle: bool) {
        for node in 0..self.shared.plan.nodes {
            let page = self.http.page(node, "/metrics").await;
            // On the way a node may be down; in the end one without a page is as good as one that says nothing.
            if page.is_none() && !idle {
                continue;
            }
            let figures = Figures {
                at_us: os::now_us(),
                node,
                idle,
                values: watched(&page.unwrap_or_default()),
            };
            self.shared.recorder.change(|history| history.figures.push(figures));
        }
    }

    fn places(&self) -> Vec<Place> {
        let (users, keys) = (self.shared.plan.load.users, self.shared.plan.load.keys);
        (0..users)
            .flat_map(|user| (0..keys).map(move |key| Place { user, key }))
            .collect()
    }

    /// All that is asked when the clients have ended.
    pub async fn audit(&mut self, guests: Option<Guests>) -> Result<(), String> {
        let verdict = self.audit_data(guests).await;
        sleep(SETTLE).await;
        self.wait_for_votes().await;
        self.look_at_metrics(true).await;
        verdict
    }

    async fn audit_data(&mut self, guests: Option<Guests>) -> Result<(), String> {
        self.compare_replicas().await?;
        if let Some(guests) = guests {
            guests
                .await
                .map_err(|error| format!("a client ended badly: {error}"))??;
        }
        self.read_in_other_ways().await?;
        self.add_everywhere().await?;
        if self.shared.plan.clears_all {
            self.clear_all().await?;
        }
        Ok(())
    }

    /// Damage that a merge met just now takes its time to heal, no longer than all may take to be alike; what is left then shows in the last figures.
    async fn wait_for_votes(&mut self) {
        let until_us = os::now_us() + self.shared.plan.converge_us;
        for node in 0..self.shared.plan.nodes {
            loop {
                let page = self.http.page(node, "/metrics").await;
                let unsynced = page.and_then(|page| watched(&page).get(UNSYNCED).copied());
                if unsynced.unwrap_or(0) == 0 || os::now_us() > until_us {
                    break;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// G10: whatever was wrong with its disk, every node takes writes again, and all replicas do.
    async fn add_everywhere(&mut self) -> Result<(), String> {
        for node in 0..self.shared.plan.nodes {
            let place = Place { user: 0, key: 0 };
            if self.shared.plan.topology == Topology::Separate && home(&self.shared.plan, place) != node {
                continue;
            }
            let text = self.shared.recorder.new_text(20);
            let mut asked = self.draw_op(place, What::Add { text, finish: true });
            asked.node = node;
            self.insist(asked).await?;
        }
        // And all replicas of the other keys, whose slots were damaged perhaps.
        let others = self.places().into_iter().skip(1).take(PLACES_MAX);
        for (nth, place) in others.enumerate() {
            let text = self.shared.recorder.new_text(20);
            let mut asked = self.draw_op(place, What::Add { text, finish: true });
            if self.shared.plan.topology == Topology::Cluster {
                asked.node = (nth % usize::from(self.shared.plan.nodes)) as u8;
            }
            self.insist(asked).await?;
        }
        Ok(())
    }

    async fn clear_all(&mut self) -> Result<(), String> {
        for place in self.places() {
            let asked = self.draw_op(place, What::Clear);
            self.insist(asked).await?;
        }
        let reclaim = Duration::from_millis(2 * self.shared.plan.shard.idle_ms + RECLAIM_MS);
        sleep(reclaim).await;
        let now_us = os::now_us();
        self.shared
            .recorder
            .change(|history| history.reclaimed_us = Some(now_us));
        if !self.shared.plan.forgets {
            return Ok(());
        }
        // And what is remembered for an hour takes no more space when it is over.
        self.shared.order(Order::HourPasses);
        sleep(reclaim).await;
        let now_us = os::now_us();
        self.shared
            .recorder
            .change(|history| history.forgotten_us = Some(now_us));
        Ok(())
    }

    /// Until all replicas took it, or it takes too long.
    async fn insist(&mut self, mut asked: Asked) -> Result<(), String> {
        asked.level = Level::All;
        let begun_us = os::now_us();
        while !self.attempt(&asked).await {
            if os::now_us() - begun_us > TAKEN_US_MAX {
                return Err(format!(
                    "all is well, and node {} does not do this at all replicas: {asked:?}",
                    asked.node
                ));
            }
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Reads everything from every node, again and again until all are alike; then once at quorum.
    async fn compare_replicas(&mut self) -> Result<(), String> {
        let begun_us = os::now_us();
        let places = self.places();
        let converge_us = self.shared.plan.converge_us;
        let (mut before, mut comparisons) = (String::new(), 0);
        loop {
            comparisons += 1;
            let round_us = os::now_us();
            let reads = self.read_all_replicas(&places).await;
            let alike = reads.iter().all(|of_place| {
                let answered = of_place
                    .iter()
                    .all(|(_, _, outcome)| matches!(outcome, Outcome::Answered(_)));
                answered && of_place.iter().all(|(_, _, outcome)| *outcome == of_place[0].2)
            });
            // What counts is when it began.
            let late = round_us - begun_us > converge_us && comparisons >= COMPARISONS_MIN;
            if alike || late {
                let mut refused = None;
                for (asked, began_us, outcome) in reads.into_iter().flatten() {
                    if !matches!(outcome, Outcome::Answered(_)) {
                        refused = Some(format!("node {} on {:?}: {outcome:?}", asked.node, asked.place));
                    }
                    self.shared.recorder.end(asked, began_us, outcome);
                }
                if late {
                    return Err(format!(
                        "the nodes are not alike {converge_us} µs after the last fault: {refused:?}; before that: {before}"
                    ));
                }
                break;
            }
            before = first_difference(&reads);
            sleep(Duration::from_millis(500)).await;
        }
        for place in places {
            let asked = self.draw_op(place, What::Get);
            self.read_at_last(asked, Level::Quorum, begun_us).await?;
        }
        Ok(())
    }

    /// A replica may still find out that it has all that it should hold; no longer than all may take to be alike.
    async fn read_at_last(&mut self, mut asked: Asked, level: Level, begun_us: u64) -> Result<Answer, String> {
        asked.level = level;
        loop {
            if let Some(answer) = self.attempt_for(&asked).await {
                return Ok(answer);
            }
            if os::now_us() - begun_us > self.shared.plan.converge_us {
                return Err(format!("a read failed although all is well: {asked:?}"));
            }
            sleep(Duration::from_millis(100)).await;
            asked.op = self.shared.recorder.new_op();
            asked.node = self.draw_node(asked.place);
        }
    }

    /// Once nothing can change any more: pages, counts and listings, which have to say the same as the lists do.
    async fn read_in_other_ways(&mut self) -> Result<(), String> {
        let settled_us = self.shared.recorder.settled_us() + SPREAD_US;
        sleep(Duration::from_micros(settled_us.saturating_sub(os::now_us()))).await;
        let now_us = os::now_us();
        self.shared.recorder.change(|history| history.settled_us = Some(now_us));
        let mut places = self.places();
        while places.len() > PLACES_MAX {
            places.swap_remove(self.rng.below(places.len() as u64) as usize);
        }
        for place in places {
            self.read_place_in_other_ways(place).await?;
        }
        // Where each key has a home of its own, no node lists all.
        if self.shared.plan.topology == Topology::Cluster || self.shared.plan.nodes == 1 {
            for user in 0..self.shared.plan.load.users {
                self.list_in_pages(user).await?;
            }
        }
        Ok(())
    }

    async fn read_place_in_other_ways(&mut self, place: Place) -> Result<(), String> {
        let begun_us = os::now_us();
        let asked = self.draw_op(place, What::Get);
        let list = self.read_at_last(asked, Level::Quorum, begun_us).await?;
        for level in [Level::One, Level::Quorum] {
            let asked = self.draw_last(place, What::Count);
            self.read_at_last(asked, level, begun_us).await?;
        }
        let len = match list {
            Answer::Values(values) => values.len() as u64,
            _ => 0,
        };
        let limit = self.rng.between(1, 3).max(len.div_ceil(PAGES_MAX));
        let level = *self.rng.pick(&[Level::One, Level::Quorum]);
        let mut offset = 0;
        // And one page beyond the end.
        while offset < len + limit {
            let asked = self.draw_last(place, What::Page { offset, limit });
            self.read_at_last(asked, level, begun_us).await?;
            offset += limit;
        }
        Ok(())
    }

    async fn list_in_pages(&mut self, user: u8) -> Result<(), String> {
        let begun_us = os::now_us();
        let limit = Some(self.rng.between(1, 3));
        let level = *self.rng.pick(&[Level::One, Level::Quorum]);
        let mut listing = Listing {
            prefix: self.rng.percent(30).then_some(1),
            limit,
            ..Listing::default()
        };
        loop {
            let asked = self.draw_last(Place { user, key: 0 }, What::List(listing));
            let answer = self.read_at_last(asked, level, begun_us).await?;
            let Some(next) = next_page(listing.after, &answer) else {
                return Ok(());
            };
            listing.after = Some(next);
        }
    }

    fn draw_last(&mut self, place: Place, what: What) -> Asked {
        let mut asked = self.draw_op(place, what);
        asked.is_last = true;
        asked
    }

    async fn read_all_replicas(&mut self, places: &[Place]) -> Vec<Vec<(Asked, u64, Outcome)>> {
        let mut reads = Vec::new();
        // A node that does not answer once is not waited for again in this round.
        let mut silent = BTreeMap::new();
        for place in places {
            let nodes = match self.shared.plan.topology {
                Topology::Separate => {
                    let home = home(&self.shared.plan, *place);
                    home..home + 1
                }
                Topology::Cluster => 0..self.shared.plan.nodes,
            };
            let mut of_place = Vec::new();
            for node in nodes {
                let mut asked = self.draw_op(*place, What::Get);
                asked.node = node;
                asked.level = Level::One;
                asked.is_last = true;
                let (path, mut body) = self.shared.recorder.request(&asked);
                body["user"] = credentials(&user_name(place.user));
                let began_us = os::now_us();
                let mut outcome = match silent.get(&node) {
                    Some(outcome) => Outcome::clone(outcome),
                    None => self.ask(&asked, path, &body).await,
                };
                if matches!(outcome, Outcome::Unknown(_)) {
                    silent.insert(node, outcome.clone());
                }
                if let Some(lie) = self.shared.plan.planted {
                    outcome = self.memory.tell(lie, &mut self.rng, &asked, outcome);
                }
                of_place.push((asked, began_us, outcome));
            }
            reads.push(of_place);
        }
        reads
    }
}

fn first_difference(reads: &[Vec<(Asked, u64, Outcome)>]) -> String {
    let differs = |of_place: &&Vec<(Asked, u64, Outcome)>| {
        let refused = of_place
            .iter()
            .any(|(_, _, outcome)| !matches!(outcome, Outcome::Answered(_)));
        refused || of_place.iter().any(|(_, _, outcome)| *outcome != of_place[0].2)
    };
    let Some(of_place) = reads.iter().find(differs) else {
        return "alike".to_owned();
    };
    let outcomes = of_place
        .iter()
        .map(|(asked, at_us, outcome)| format!("{at_us} node {}: {outcome:?}", asked.node));
    format!("{:?}: {}", of_place[0].0.place, outcomes.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_several_values_is_kept() {
        let page = "# HELP x\nkv_peer_waiting_bytes{peer=\"a\"} 3\nkv_peer_waiting_bytes{peer=\"b\"} 7\nkv_other 9\n";
        assert_eq!(watched(page), BTreeMap::from([("kv_peer_waiting_bytes".to_owned(), 7)]));
    }
}
