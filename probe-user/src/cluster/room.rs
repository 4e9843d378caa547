//! The memory of the answers that are read at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AgentError, all::AT_ONCE};

/// What one answer may have: most are a small part of it.
const SHARE: usize = 2 << 20;
/// A JSON answer, or a text.
const MOST: usize = 16 << 20;
/// Answers that may be larger than a share at a time; others wait, and with them their agents.
const LARGE: usize = 2;

/// All answers together, bytes: those of [`AT_ONCE`] agents.
pub const TOGETHER: usize = AT_ONCE * SHARE + LARGE * (MOST - SHARE);

/// Room for the answers of [`AT_ONCE`] agents.
#[derive(Debug)]
pub struct Room {
    share: usize,
    most: usize,
    large: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(SHARE, MOST, LARGE)
    }
}

/// The room of one answer, until it is dropped.
#[derive(Debug, Default)]
pub struct Taken {
    large: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn of(share: usize, most: usize, large: usize) -> Self {
        Self {
            share,
            most,
            large: Arc::new(Semaphore::new(large)),
        }
    }

    /// Waits until an answer that has `taken` may have so many bytes.
    ///
    /// # Errors
    /// When none may have as many.
    pub async fn take(&self, taken: &mut Taken, bytes: usize) -> Result<(), AgentError> {
        if bytes > self.most {
            return Err(AgentError::TooLong(self.most as u64));
        }
        if bytes > self.share && taken.large.is_none() {
            // It is never closed.
            taken.large = Arc::clone(&self.large).acquire_owned().await.ok();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn large_answers_wait_for_each_other() {
        let room = Room::of(10, 100, 1);
        let mut taken = [Taken::default(), Taken::default(), Taken::default()];
        for one in &mut taken {
            room.take(one, 10).await.unwrap();
        }
        room.take(&mut taken[0], 11).await.unwrap();
        room.take(&mut taken[0], 100).await.unwrap();
        let no = timeout(Duration::from_millis(50), room.take(&mut taken[1], 11)).await;
        assert!(no.is_err());
        // One that is small has its share all the same.
        room.take(&mut taken[2], 9).await.unwrap();
        taken[0] = Taken::default();
        let yes = timeout(Duration::from_secs(20), room.take(&mut taken[1], 11)).await;
        yes.unwrap().unwrap();
        let refused = room.take(&mut taken[1], 101).await;
        assert!(matches!(refused, Err(AgentError::TooLong(100))), "{refused:?}");
    }

    #[test]
    fn all_together_are_bounded() {
        assert_eq!(TOGETHER, 60 << 20);
    }
}
