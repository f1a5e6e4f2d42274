//! What the tries of one request that failed have said, and what its sender is told in the end.
//!
//! Invariant: that nothing was sent, or that nothing was changed, is only said when that is so of all tries.

use super::error::{ClientError, Failure};

pub(super) struct Failures {
    /// Whether the request changes anything: otherwise nothing is in doubt.
    changes: bool,
    /// Failures to connect in this round.
    unreachable: Vec<Failure>,
    /// What the first of the nodes that answered wrongly said.
    wrong: Option<ClientError>,
    /// The first refusal that is the last word of its node on the request itself: nobody is asked any more. But a try that is under way may
    /// do it all the same, for nodes need not know the same of users.
    refused: Option<ClientError>,
    /// What came of the last try that may have taken effect.
    doubtful: Option<ClientError>,
    last: Option<ClientError>,
    /// The last that a node said of why it cannot now, and how many rounds were begun by then.
    told: Option<(u32, ClientError)>,
    rounds_begun: u32,
}

impl Failures {
    pub fn new(changes: bool) -> Self {
        Self {
            changes,
            unreachable: Vec::new(),
            wrong: None,
            refused: None,
            doubtful: None,
            last: None,
            told: None,
            rounds_begun: 1,
        }
    }

    pub fn begin_round(&mut self) {
        self.unreachable.clear();
        self.rounds_begun += 1;
    }

    pub fn note_doubtful(&mut self, error: ClientError) {
        self.doubtful = Some(error);
    }

    pub fn note_wrong(&mut self, error: ClientError) {
        self.wrong.get_or_insert(error);
    }

    pub fn note_refused(&mut self, error: ClientError) {
        self.refused.get_or_insert(error);
    }

    /// A failure that may pass.
    pub fn note_passing(&mut self, error: ClientError) {
        if matches!(error, ClientError::Unavailable { .. }) {
            self.told = Some((self.rounds_begun, error.clone()));
        }
        self.last = Some(match error {
            ClientError::Unreachable { tried } => {
                self.unreachable.extend(tried);
                let tried = self.unreachable.clone();
                ClientError::Unreachable { tried }
            }
            other => other,
        });
    }

    pub fn refused(&self) -> Option<&ClientError> {
        self.refused.as_ref()
    }

    /// The failure that says the most of the last ones: what a node says of itself or its replicas, rather than that another one is not
    /// there, as long as it is not older than the round before.
    pub fn last(&self) -> Option<&ClientError> {
        let told = self.told.as_ref();
        let broken = matches!(self.last, Some(ClientError::Broken { silent: false, .. }));
        let told = told.filter(|(at, _)| self.rounds_begun - at <= 1 && !broken);
        told.map(|(_, told)| told).or(self.last.as_ref())
    }

    /// What has to be said after the tries so far, if one has ended.
    pub fn summary(&self) -> Option<ClientError> {
        if let Some(refused) = &self.refused {
            return Some(self.doubted(refused));
        }
        match (self.last(), &self.wrong, &self.doubtful) {
            (Some(ClientError::Unreachable { .. }) | None, Some(wrong), _) => Some(self.doubted(wrong)),
            (Some(ClientError::Unreachable { .. }) | None, None, Some(doubtful)) => Some(doubtful.clone()),
            (Some(last), _, Some(doubtful)) if !last.is_in_doubt() => Some(self.with_doubt(doubtful.clone())),
            (last, ..) => last.cloned(),
        }
    }

    /// What has to be said when no node is left that answers as it should.
    pub fn wrong(&self) -> Option<ClientError> {
        self.wrong.as_ref().map(|wrong| self.doubted(wrong))
    }

    /// What has to be said when the time is over while tries are under way, which may have been sent: `no_answer` says so.
    pub fn cut_off(&self, no_answer: ClientError) -> ClientError {
        match &self.refused {
            Some(refused) => refused.clone().beside(&no_answer),
            None => self.with_doubt(no_answer),
        }
    }

    /// A refusal, which holds for its own try only.
    fn doubted(&self, refusal: &ClientError) -> ClientError {
        match &self.doubtful {
            Some(doubtful) if self.changes => refusal.clone().beside(doubtful),
            _ => refusal.clone(),
        }
    }

    /// The error of a try that may have taken effect, or rather what another one was told by its node: that is why. But it may say that
    /// nothing was changed.
    fn with_doubt(&self, error: ClientError) -> ClientError {
        match (error, self.last()) {
            (ClientError::Broken { .. }, Some(told @ ClientError::Unavailable { .. })) if !self.changes => told.clone(),
            (error @ ClientError::Broken { .. }, Some(told @ ClientError::Unavailable { .. })) => {
                told.clone().beside(&error)
            }
            (error, _) => error,
        }
    }
}
