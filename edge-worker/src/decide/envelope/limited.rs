//! Refusals because of limits: the quotas of providers' accounts, and the limits of a tenant. Each refusal has the
//! status 429, and most say when to try again. A part of [`super::Failure`].

/// OpenAI's official clients ignore waits of this length or longer, in milliseconds.
const LONGEST_OBEYED_MS: u64 = 60_000;

/// Which limit refuses a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limited {
    /// The quotas of the endpoints that may be asked don't allow the request now.
    Quota {
        /// The shortest wait until one of these quotas allows the request, in milliseconds.
        wait_ms: u64,
    },
    /// The request may need more tokens than any quota, or the tenant's budget, ever allows at once.
    TooLarge,
    /// The tenant has used up its budget.
    Budget {
        /// How long until the budget allows the request, in milliseconds.
        wait_ms: u64,
    },
    /// The tenant has as many requests under way as it may have.
    Concurrency {
        /// The most requests that the tenant may have under way.
        most: u32,
    },
    /// Every region that may be asked is too full for the tenant's service tier.
    Capacity {
        /// How long to wait before the next try, in milliseconds.
        wait_ms: u64,
    },
}

impl Limited {
    /// The code.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Quota { .. } => "quota_exhausted",
            Self::TooLarge => "larger_than_quota",
            Self::Budget { .. } => "budget_exhausted",
            Self::Concurrency { .. } => "concurrency_exhausted",
            Self::Capacity { .. } => "capacity_refused",
        }
    }

    /// The error message for the client.
    pub(super) fn message(self) -> String {
        let seconds = |ms: u64| ms.div_ceil(1_000);
        match self {
            Self::Quota { wait_ms } => format!(
                "The quotas of every region allowed to process your request are used up. Nothing was sent that they \
                 don't allow. Try again in {} seconds.",
                seconds(wait_ms)
            ),
            Self::TooLarge => "The request may use more tokens than your budget or any quota of the regions allowed \
                               to you allows. Nothing was sent. Send a shorter prompt, or ask for a shorter answer by \
                               \"max_completion_tokens\", \"max_output_tokens\" or \"max_tokens\"."
                .into(),
            Self::Budget { wait_ms } => format!(
                "Your budget at this gateway is used up. Nothing was sent. It allows this request in {} seconds. Ask \
                 its operator for a larger one.",
                seconds(wait_ms)
            ),
            Self::Concurrency { most } => format!(
                "{most} of your requests are under way here, as many as you may have at once. Nothing was sent. Wait \
                 until one ends, or ask the operator for more."
            ),
            Self::Capacity { wait_ms } => format!(
                "Every region allowed to process your request is too full for your service tier. It was sent nowhere \
                 else. Try again in {} seconds.",
                seconds(wait_ms)
            ),
        }
    }

    /// Headers that say how long to wait. OpenAI's official clients wait for less than a minute. If the wait is longer,
    /// the clients ignore the wait and retry within seconds. For such waits, `x-should-retry` tells the clients not to
    /// retry at all.
    pub(super) fn headers(self) -> Vec<(&'static str, String)> {
        let wait_ms = match self {
            Self::TooLarge => return vec![("x-should-retry", "false".to_owned())],
            Self::Concurrency { .. } => return vec![("retry-after", "1".to_owned())],
            Self::Quota { wait_ms } | Self::Budget { wait_ms } | Self::Capacity { wait_ms } => wait_ms,
        };
        let wait = [("retry-after", wait_ms.div_ceil(1_000).to_string()), ("retry-after-ms", wait_ms.to_string())];
        let lasting = (wait_ms >= LONGEST_OBEYED_MS).then(|| ("x-should-retry", "false".to_owned()));
        wait.into_iter().chain(lasting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_tell_clients_not_to_retry() {
        let wait = |seconds: &str, ms: &str| [("retry-after", seconds.to_owned()), ("retry-after-ms", ms.to_owned())];
        assert_eq!(Limited::Quota { wait_ms: 1_001 }.headers(), wait("2", "1001"));
        for limited in [Limited::Quota { wait_ms: 150_000 }, Limited::Budget { wait_ms: 150_000 }] {
            assert_eq!(limited.headers()[..2], wait("150", "150000"));
            assert_eq!(limited.headers()[2], ("x-should-retry", "false".to_owned()));
        }
        assert_eq!(Limited::TooLarge.headers(), [("x-should-retry", "false".to_owned())]);
        assert_eq!(Limited::Concurrency { most: 2 }.headers(), [("retry-after", "1".to_owned())]);
    }
}
