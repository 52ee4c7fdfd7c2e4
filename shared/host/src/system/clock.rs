//! The time of day as an argument: code that needs the time holds a [`Clock`], so that tests can set the time.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bailiwick_rules::time::Timestamp;

/// Tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        }))
    }

    /// A clock that begins at `start` and follows the clock of the Tokio runtime, which tests can pause and advance.
    #[must_use]
    #[cfg(any(test, feature = "testing"))]
    pub fn of_runtime(start: Timestamp) -> Self {
        let begun = tokio::time::Instant::now();
        Self(Arc::new(move || {
            let passed = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
            Timestamp(start.0.saturating_add(passed))
        }))
    }

    /// A clock that stands still.
    #[cfg(any(test, feature = "testing"))]
    pub fn fixed(now: Timestamp) -> Self {
        Self(Arc::new(move || now))
    }

    /// The same clock, set forward by the present number of milliseconds in `ahead`.
    #[cfg(any(test, feature = "testing"))]
    pub fn set_ahead(self, ahead: Arc<std::sync::atomic::AtomicI64>) -> Self {
        Self(Arc::new(move || Timestamp(self.now().0 + ahead.load(std::sync::atomic::Ordering::Relaxed))))
    }

    /// The time.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}
