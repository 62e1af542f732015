//! What an error code of the service means for us.

/// The consequence of an error code.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Severity {
    /// Trying again is pointless: the worker must stop.
    Refusal,
    /// Fatal while the stream is being initialised, else an ordinary non-retryable error.
    BadConfig,
    /// The server no longer knows our session.
    SessionLost,
    /// Counts for the breaker.
    Retryable,
    /// Does not count for the breaker.
    Permanent,
}

/// Reads a code. The table of the protocol decides; an unknown code is read by its flag.
pub fn classify(code: &str, retryable: bool) -> Severity {
    match code {
        "AUTH_FAILED" => Severity::Refusal,
        "INVALID_CONFIG" => Severity::BadConfig,
        "STREAM_NOT_FOUND" => Severity::SessionLost,
        "TIMEOUT" | "MODEL_ERROR" | "GPU_OOM" | "QUEUE_FULL" | "RATE_LIMIT" => Severity::Retryable,
        "FRAGMENT_TOO_LARGE" | "INVALID_SEQUENCE" => Severity::Permanent,
        _ if retryable => Severity::Retryable,
        _ => Severity::Permanent,
    }
}

/// Whether the protocol's table knows the code, so that flags sent with it do not matter.
pub(super) fn is_known(code: &str) -> bool {
    classify(code, false) != Severity::Permanent
        || matches!(code, "FRAGMENT_TOO_LARGE" | "INVALID_SEQUENCE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_decides_and_flags_decide_for_codes_never_heard_of() {
        let rows = [
            ("AUTH_FAILED", true, Severity::Refusal),
            ("STREAM_NOT_FOUND", true, Severity::SessionLost),
            ("INVALID_CONFIG", true, Severity::BadConfig),
            ("FRAGMENT_TOO_LARGE", true, Severity::Permanent),
            ("INVALID_SEQUENCE", true, Severity::Permanent),
            ("TIMEOUT", false, Severity::Retryable),
            ("MODEL_ERROR", false, Severity::Retryable),
            ("GPU_OOM", false, Severity::Retryable),
            ("QUEUE_FULL", false, Severity::Retryable),
            ("RATE_LIMIT", false, Severity::Retryable),
        ];
        for (code, against, expected) in rows {
            assert_eq!(classify(code, against), expected, "{code}");
            assert_eq!(classify(code, !against), expected, "{code}");
            assert!(is_known(code), "{code}");
        }
        assert_eq!(classify("FULL_MOON", true), Severity::Retryable);
        assert_eq!(classify("FULL_MOON", false), Severity::Permanent);
        assert_eq!(
            classify("timeout", false),
            Severity::Permanent,
            "codes are upper case"
        );
        assert!(!is_known("FULL_MOON") && !is_known(""));
    }
}
