//! Reads and listings, held against the model.

use kv_storage::core::op::Dot;

use super::{World, about};
use crate::engine::{Engine, Place, Refusal};
use crate::model::Violation;

impl<E: Engine> World<E> {
    pub(super) fn read(&mut self) -> Result<(), Violation> {
        let place = self.rng.pick(&self.places).clone();
        self.read_one(&place)
    }

    fn read_one(&mut self, place: &Place) -> Result<(), Violation> {
        let now = self.now;
        match self.engine().get(place, now) {
            Ok(seen) => {
                self.check_dots(place, seen.ops)?;
                let fits = self.model(place).observed(&seen.values);
                fits.map_err(|violation| about(place, violation))
            }
            Err(refusal) => self.stopped_reading(&refusal),
        }
    }

    /// A dot names one op for ever: what was once read under it is all that it can be.
    fn check_dots(&mut self, place: &Place, ops: Vec<(Dot, String)>) -> Result<(), Violation> {
        for (dot, text) in ops {
            let named = self.dots.entry(dot).or_insert_with(|| (place.clone(), text.clone()));
            if *named != (place.clone(), text.clone()) {
                return Err(Violation(format!(
                    "{dot:?} was used twice: for {named:.80?} and for {place:?} {text:.40?}"
                )));
            }
        }
        Ok(())
    }

    fn stopped_reading(&mut self, refusal: &Refusal) -> Result<(), Violation> {
        if !self.disk.is_dead(&self.mount) {
            return Err(Violation(format!("a read failed on a disk that reads: {refusal:?}")));
        }
        self.lost(Vec::new(), &format!("{refusal:?}"))
    }

    pub(super) fn list(&mut self) -> Result<(), Violation> {
        let user = self.rng.pick(&self.places).user.clone();
        let limit = self.rng.between(1, 5) as usize;
        let mut named: Vec<String> = Vec::new();
        let mut after = None;
        loop {
            let now = self.now;
            match self.engine().keys(&user, after.as_deref(), limit, now) {
                Ok((page, next)) => {
                    named.extend(page);
                    if next.is_none() {
                        break;
                    }
                    if next <= after || named.last() > next.as_ref() {
                        return Err(Violation(format!(
                            "the page of keys after {after:?} is followed by that after {next:?}"
                        )));
                    }
                    after = next;
                }
                Err(refusal) => return self.stopped_reading(&refusal),
            }
        }
        if !named.is_sorted_by(|a, b| a < b) {
            return Err(Violation(format!("a listing of {user:?} is out of order: {named:?}")));
        }
        for place in self.places.clone().into_iter().filter(|place| place.user == user) {
            let is_named = named.iter().any(|name| name == place.key.as_str());
            let seen = self.model(&place).listed(is_named);
            seen.map_err(|violation| about(&place, violation))?;
            named.retain(|name| name != place.key.as_str());
        }
        match named.as_slice() {
            [] => Ok(()),
            strange => Err(Violation(format!("{user:?} never had the keys {strange:?}"))),
        }
    }

    pub(super) fn look_at_everything(&mut self) -> Result<(), Violation> {
        for place in self.places.clone() {
            let opens = self.opens;
            self.read_one(&place)?;
            // A crash on the way ended in a reopen of its own, which looked at everything.
            if self.opens != opens {
                return Ok(());
            }
        }
        Ok(())
    }
}
