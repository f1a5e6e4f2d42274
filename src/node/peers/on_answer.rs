//! Where a peer's answer goes.

use tokio::sync::oneshot;

use crate::wire::Response;

type Then = Box<dyn FnOnce(Option<Response>) + Send>;

/// Hears exactly once: of the answer, or that there will be none.
pub enum OnAnswer {
    /// A future that waits for it.
    Waiter(oneshot::Sender<Response>),
    /// What is to be done with it. It must not keep its thread for long.
    Then(OnDrop),
}

/// Runs with None if it is dropped before it ran.
pub struct OnDrop(Option<Then>);

impl OnAnswer {
    pub fn then(then: impl FnOnce(Option<Response>) + Send + 'static) -> Self {
        Self::Then(OnDrop(Some(Box::new(then))))
    }

    pub fn send(self, response: Response) {
        match self {
            Self::Waiter(waiter) => {
                // It may have given up.
                let _ = waiter.send(response);
            }
            Self::Then(mut then) => then.run(Some(response)),
        }
    }
}

impl OnDrop {
    fn run(&mut self, response: Option<Response>) {
        if let Some(then) = self.0.take() {
            then(response);
        }
    }
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.run(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_hears_once_whatever_happens() {
        let (heard, hearing) = mpsc::channel();
        let hearer = |name: &'static str| {
            let heard = heard.clone();
            OnAnswer::then(move |response| heard.send((name, response.is_some())).unwrap())
        };
        hearer("answered").send(Response::Done);
        drop(hearer("dropped"));
        assert_eq!(
            hearing.try_iter().collect::<Vec<_>>(),
            [("answered", true), ("dropped", false)]
        );
        let (waiter, mut waiting) = oneshot::channel();
        drop(OnAnswer::Waiter(waiter));
        assert_eq!(waiting.try_recv().map(drop), Err(oneshot::error::TryRecvError::Closed));
    }
}
