//! The end of something that others go by: said once, and heard by whoever asked before it or asks after it.

use tokio::sync::watch;

/// Whether something is over, and how that came.
#[derive(Debug)]
pub struct Ending<T>(watch::Sender<Option<T>>);

impl<T> Default for Ending<T> {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl<T: Copy + Send + Sync + 'static> Ending<T> {
    /// Says that it is over. What was said first stays.
    pub fn say(&self, how: T) {
        self.0.send_if_modified(|said| {
            let is_first = said.is_none();
            *said = said.or(Some(how));
            is_first
        });
    }

    /// Whether it is over.
    pub fn is_said(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves when it is over.
    pub fn heard(&self) -> impl Future<Output = T> + Send + use<T> + 'static {
        let mut said = self.0.subscribe();
        async move {
            let how = said.wait_for(Option::is_some).await.map(|how| *how);
            match how {
                Ok(Some(how)) => how,
                // The sender goes with the last holder of the thing, which is no end of the thing itself.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn the_first_word_counts_for_who_asked_before_and_after() {
        let ending = Ending::default();
        let mut before = Box::pin(ending.heard());
        assert!(!ending.is_said() && before.as_mut().now_or_never().is_none());
        ending.say(1);
        ending.say(2);
        assert_eq!(
            (before.now_or_never(), ending.heard().now_or_never()),
            (Some(1), Some(1))
        );
        let forgotten = Ending::<u8>::default().heard();
        assert_eq!(forgotten.now_or_never(), None, "nobody said so");
    }
}
