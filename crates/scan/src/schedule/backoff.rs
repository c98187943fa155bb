//! How long a host that fails is left alone.

use std::time::Duration;

use world::Timestamp;

use super::Backoff;
use crate::{drift, failure::Reason, policy};

/// Whether a scan that ended so says anything of its host. One that was stopped, or that found another
/// scan running, does not.
pub fn counts(reason: Reason) -> bool {
    !matches!(reason, Reason::Cancelled | Reason::HostBusy)
}

/// After one more failure at `at`. From the policy's number of failures on, the next attempt is put off
/// by 2, 4, 8 … times `interval`, at most by the policy's ceiling.
pub fn after_failure(
    before: Option<&Backoff>,
    reason: Reason,
    at: Timestamp,
    interval: Duration,
    policy: policy::Backoff,
) -> Backoff {
    let failures = before.map_or(0, |before| before.failures).saturating_add(1);
    let until = failures.checked_sub(policy.failures.max(1)).map(|beyond| {
        let factor = 2_u32.checked_pow(beyond.saturating_add(1));
        let wait = factor
            .and_then(|factor| interval.checked_mul(factor))
            .map_or(policy.ceiling, |wait| wait.min(policy.ceiling));
        at.plus(wait).nanos()
    });
    Backoff {
        failures,
        last_failed: at.nanos(),
        reason,
        until,
        silent: if drift::is_silence(reason) {
            before.map_or(0, |before| before.silent).saturating_add(1)
        } else {
            0
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn check(interval_hours: u64, policy: policy::Backoff, expected_hours: &[Option<u64>]) {
        let at = Timestamp::from_nanos(7);
        let interval = Duration::from_secs(interval_hours * HOUR);
        let mut backoff: Option<Backoff> = None;
        for (failure, expected) in (1..).zip(expected_hours) {
            let next = after_failure(backoff.as_ref(), Reason::Timeout, at, interval, policy);
            let until = expected.map(|hours| at.plus(Duration::from_secs(hours * HOUR)).nanos());
            assert_eq!(
                next.until, until,
                "failure {failure}, every {interval_hours} h"
            );
            backoff = Some(next);
        }
    }

    /// Proves: SCH-17
    #[test]
    fn three_failures_in_a_row_put_the_next_attempt_off_and_each_more_doubles_it_up_to_a_day() {
        let policy = policy::Backoff::default();
        let none = None;
        check(
            1,
            policy,
            &[
                none,
                none,
                Some(2),
                Some(4),
                Some(8),
                Some(16),
                Some(24),
                Some(24),
            ],
        );
        check(5, policy, &[none, none, Some(10), Some(20), Some(24)]);
        check(48, policy, &[none, none, Some(24), Some(24)]);
        let sooner = policy::Backoff {
            failures: 1,
            ceiling: Duration::from_secs(3 * HOUR),
        };
        check(1, sooner, &[Some(2), Some(3)]);
        let never_zero = policy::Backoff {
            failures: 0,
            ..sooner
        };
        check(1, never_zero, &[Some(2), Some(3)]);
    }

    #[test]
    fn failures_without_end_do_not_overflow() {
        let before = Backoff {
            failures: u32::MAX,
            last_failed: 0,
            reason: Reason::Timeout,
            until: None,
            silent: 0,
        };
        let at = Timestamp::from_nanos(1);
        let policy = policy::Backoff::default();
        let next = after_failure(Some(&before), Reason::Timeout, at, Duration::MAX, policy);
        assert_eq!(next.until, Some(at.plus(policy.ceiling).nanos()));
    }

    #[test]
    fn what_says_nothing_of_the_host_does_not_count() {
        let silent: Vec<Reason> = Reason::ALL
            .into_iter()
            .filter(|reason| !counts(*reason))
            .collect();
        assert_eq!(silent, [Reason::HostBusy, Reason::Cancelled]);
    }
}
