//! What the records of one name come to. Pure.
//!
//! There is no consensus under this, but two things hold at a quorum: a record that was acknowledged before another one was sent stands
//! before it, and of two who each write a record and then look, at least one sees both. So whoever changes something that another one may
//! change too first says so, then looks, and goes on only if nobody else is there; or if all who look agree on who goes on.

use std::collections::BTreeMap;

use super::hashing::StoredHash;
use super::record::{NO_LIFE, Record, RecordError};

#[derive(Default)]
pub(super) struct History {
    /// In the order of their first records.
    lives: Vec<(String, Life)>,
    /// How often each number was given up, less how often it was restored.
    voids: BTreeMap<String, i64>,
    /// The newest record that says who may log in cannot be read.
    damaged: Option<RecordError>,
}

#[derive(Default)]
struct Life {
    is_claimed: bool,
    active: Option<(StoredHash, bool)>,
    removals: Vec<RemovalMark>,
}

/// That somebody wants to remove the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemovalMark {
    pub life: String,
    pub id: String,
    pub decided: bool,
}

impl RemovalMark {
    pub fn record(&self) -> Record {
        Record::Removing {
            life: self.life.clone(),
            id: self.id.clone(),
            decided: self.decided,
        }
    }
}

/// Whether there is a user.
pub(super) enum Standing<'a> {
    None,
    Active {
        life: &'a str,
        stored: &'a StoredHash,
        admin: bool,
    },
    /// Nobody may log in with it or add it until the removal is done. The marks in their order, at least one.
    Removing {
        marks: Vec<RemovalMark>,
        admin: bool,
    },
    Damaged(&'a RecordError),
}

impl History {
    pub fn push(&mut self, record: Result<Record, RecordError>) {
        match record {
            Ok(Record::Adding { life }) => self.life(life).is_claimed = true,
            Ok(Record::Active { life, stored, admin }) => {
                self.damaged = None;
                self.life(life).active = Some((stored, admin));
            }
            Ok(Record::Removing { life, id, decided }) => {
                let marks = &mut self.life(life.clone()).removals;
                match marks.iter_mut().find(|mark| mark.id == id) {
                    Some(mark) => mark.decided |= decided,
                    None => marks.push(RemovalMark { life, id, decided }),
                }
            }
            Ok(Record::Void { id }) => *self.voids.entry(id).or_default() += 1,
            Ok(Record::Restored { id }) => *self.voids.entry(id).or_default() -= 1,
            Err(error) => self.damaged = Some(error),
        }
    }

    fn life(&mut self, name: String) -> &mut Life {
        let at = self.lives.iter().position(|(life, _)| *life == name);
        let at = at.unwrap_or_else(|| {
            self.lives.push((name, Life::default()));
            self.lives.len() - 1
        });
        &mut self.lives[at].1
    }

    pub fn is_void(&self, id: &str) -> bool {
        self.voids.get(id).is_some_and(|voids| *voids > 0)
    }

    /// The first life that was added and not given up. Of one whose removal is done there is no claim any more: a password that was set
    /// at the same time brings nobody back.
    fn first_life(&self) -> Option<(&str, &Life)> {
        let stands = |(name, life): &&(String, Life)| {
            life.active.is_some() && (life.is_claimed || name == NO_LIFE) && !self.is_void(name)
        };
        self.lives.iter().find(stands).map(|(name, life)| (&**name, life))
    }

    /// The life of a user whose newest record is damaged, and the right that it had, as far as older ones tell.
    pub fn last_known(&self) -> (String, bool) {
        if let Some((name, life)) = self.first_life() {
            return (name.to_owned(), life.active.as_ref().is_some_and(|(_, admin)| *admin));
        }
        let claimed = self
            .lives
            .iter()
            .find(|(name, life)| life.is_claimed && !self.is_void(name));
        (claimed.map_or(NO_LIFE, |(name, _)| name).to_owned(), false)
    }

    /// The marks of the removal of this life, without those that were given up.
    fn marks_of<'a>(&'a self, life: &'a str) -> impl Iterator<Item = &'a RemovalMark> {
        let of_life = self.lives.iter().filter(move |(name, _)| name == life);
        of_life
            .flat_map(|(_, life)| &life.removals)
            .filter(|mark| !self.is_void(&mark.id))
    }

    pub fn standing(&self) -> Standing<'_> {
        let first = self.first_life();
        let mut marks: Vec<RemovalMark> = first
            .iter()
            .flat_map(|(name, _)| self.marks_of(name))
            .cloned()
            .collect();
        if first.is_none_or(|(name, _)| name != NO_LIFE && self.damaged.is_some()) {
            marks.extend(self.marks_of(NO_LIFE).cloned());
        }
        let active = first.and_then(|(name, life)| Some((name, life.active.as_ref()?)));
        match (&self.damaged, active) {
            _ if !marks.is_empty() => Standing::Removing {
                marks,
                admin: self.damaged.is_none() && active.is_some_and(|(_, (_, admin))| *admin),
            },
            (Some(error), _) => Standing::Damaged(error),
            (None, Some((life, (stored, admin)))) => Standing::Active {
                life,
                stored,
                admin: *admin,
            },
            (None, None) => Standing::None,
        }
    }

    /// Whether anybody may have had the name before.
    pub fn is_used(&self) -> bool {
        !self.lives.is_empty() || !self.voids.is_empty()
    }

    /// Whether this life was added, given up or not.
    pub fn is_added(&self, life: &str) -> bool {
        let found = self.lives.iter().find(|(name, _)| name == life);
        found.is_some_and(|(_, found)| found.is_claimed && found.active.is_some())
    }

    /// Whether this life was added and not given up.
    pub fn stands(&self, life: &str) -> bool {
        self.is_added(life) && !self.is_void(life)
    }

    pub fn is_claimed(&self, life: &str) -> bool {
        self.lives.iter().any(|(name, found)| name == life && found.is_claimed) && !self.is_void(life)
    }

    /// Those who want to add the user, and have neither done so nor given up.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let open = |(name, life): &&(String, Life)| life.is_claimed && life.active.is_none() && !self.is_void(name);
        self.lives.iter().filter(open).map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGON2: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn adding(life: &str) -> Record {
        Record::Adding { life: life.to_owned() }
    }

    fn active(life: &str, admin: bool) -> Record {
        Record::Active {
            life: life.to_owned(),
            stored: StoredHash::parse(ARGON2).unwrap(),
            admin,
        }
    }

    fn removing(life: &str, id: &str) -> Record {
        Record::Removing {
            life: life.to_owned(),
            id: id.to_owned(),
            decided: false,
        }
    }

    fn void(id: &str) -> Record {
        Record::Void { id: id.to_owned() }
    }

    fn restored(id: &str) -> Record {
        Record::Restored { id: id.to_owned() }
    }

    fn damaged() -> RecordError {
        RecordError::Name
    }

    fn told<const N: usize>(records: [Result<Record, RecordError>; N]) -> String {
        let mut history = History::default();
        records.into_iter().for_each(|record| history.push(record));
        match history.standing() {
            Standing::None => "none".to_owned(),
            Standing::Active { life, admin, .. } => format!("active {life} {admin}"),
            Standing::Removing { marks, admin } => {
                let ids: Vec<&str> = marks.iter().map(|mark| &*mark.id).collect();
                format!("removing {} {admin}", ids.join(","))
            }
            Standing::Damaged(_) => "damaged".to_owned(),
        }
    }

    #[test]
    fn a_user_is_there_from_its_adding_to_its_removal() {
        assert_eq!(told([]), "none");
        assert_eq!(told([Ok(adding("a"))]), "none");
        assert_eq!(told([Ok(adding("a")), Ok(active("a", true))]), "active a true");
        let marked = [Ok(adding("a")), Ok(active("a", true)), Ok(removing("a", "r"))];
        assert_eq!(told(marked), "removing r true");
        let kept = [
            Ok(adding("a")),
            Ok(active("a", true)),
            Ok(removing("a", "r")),
            Ok(void("r")),
        ];
        assert_eq!(told(kept), "active a true");
    }

    #[test]
    fn what_is_left_of_a_removed_life_brings_nobody_back() {
        assert_eq!(told([Ok(active("a", true))]), "none");
        assert_eq!(told([Ok(removing("a", "r")), Ok(restored("a"))]), "none");
        let next = [
            Ok(active("a", true)),
            Ok(adding("b")),
            Ok(active("b", false)),
            Ok(removing("a", "r")),
        ];
        assert_eq!(told(next), "active b false");
    }

    #[test]
    fn a_name_is_known_to_have_been_used_once_its_user_is_gone() {
        assert!(!History::default().is_used());
        assert_eq!(told([Ok(void("a"))]), "none");
        let mut history = History::default();
        history.push(Ok(void("a")));
        assert!(history.is_used());
    }

    #[test]
    fn the_first_of_two_lives_stands_unless_it_was_given_up() {
        let both = || {
            [
                Ok(adding("a")),
                Ok(adding("b")),
                Ok(active("b", false)),
                Ok(active("a", true)),
            ]
        };
        assert_eq!(told(both()), "active a true");
        let mut history = History::default();
        both()
            .into_iter()
            .chain([Ok(void("a"))])
            .for_each(|record| history.push(record));
        assert!(history.stands("b") && !history.stands("a"));
        history.push(Ok(restored("a")));
        assert!(history.stands("a"));
    }

    #[test]
    fn records_of_before_there_were_lives_count() {
        assert_eq!(told([Ok(active("", true)), Ok(active("", false))]), "active  false");
        assert_eq!(told([Ok(active("", true)), Ok(removing("", ""))]), "removing  true");
        assert_eq!(told([Ok(removing("", ""))]), "removing  false");
    }

    #[test]
    fn a_damaged_record_counts_until_there_is_a_newer_one_and_can_be_removed() {
        assert_eq!(told([Err(damaged())]), "damaged");
        assert_eq!(
            told([Ok(adding("a")), Ok(active("a", true)), Err(damaged())]),
            "damaged"
        );
        let repaired = [
            Ok(adding("a")),
            Ok(active("a", true)),
            Err(damaged()),
            Ok(active("a", true)),
        ];
        assert_eq!(told(repaired), "active a true");
        let marked = [
            Ok(adding("a")),
            Ok(active("a", true)),
            Err(damaged()),
            Ok(removing("", "r")),
        ];
        assert_eq!(told(marked), "removing r false");
    }
}
