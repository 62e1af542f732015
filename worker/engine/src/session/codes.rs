//! What an error code of the service means for us.

/// The consequence of an error code.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Consequence {
    /// Trying again is pointless: the worker must stop.
    Refusal,
    /// Fatal while the stream is being initialised, else an ordinary non-retryable error.
    BadConfig,
    /// The server no longer knows our session.
    SessionLost,
    /// The server counts otherwise than we do. It never counts again what it did not count once, so
    /// a second one in a row is a session lost. Does not count for the breaker.
    OutOfStep,
    /// Counts for the breaker.
    Retryable,
    /// Does not count for the breaker.
    Permanent,
}

/// Reads a code. The table of the protocol decides; an unknown code is read by its flag.
pub fn classify(code: &str, retryable: bool) -> Consequence {
    match code {
        "AUTH_FAILED" => Consequence::Refusal,
        "INVALID_CONFIG" => Consequence::BadConfig,
        "STREAM_NOT_FOUND" => Consequence::SessionLost,
        "TIMEOUT" | "MODEL_ERROR" | "GPU_OOM" | "QUEUE_FULL" | "RATE_LIMIT" => {
            Consequence::Retryable
        }
        "INVALID_SEQUENCE" => Consequence::OutOfStep,
        "FRAGMENT_TOO_LARGE" => Consequence::Permanent,
        _ if retryable => Consequence::Retryable,
        _ => Consequence::Permanent,
    }
}

/// Whether the protocol's table knows the code, so that flags sent with it do not matter.
pub(super) fn is_known(code: &str) -> bool {
    classify(code, false) != Consequence::Permanent || code == "FRAGMENT_TOO_LARGE"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_decides_and_flags_decide_for_codes_never_heard_of() {
        let rows = [
            ("AUTH_FAILED", true, Consequence::Refusal),
            ("STREAM_NOT_FOUND", true, Consequence::SessionLost),
            ("INVALID_CONFIG", true, Consequence::BadConfig),
            ("FRAGMENT_TOO_LARGE", true, Consequence::Permanent),
            ("INVALID_SEQUENCE", true, Consequence::OutOfStep),
            ("TIMEOUT", false, Consequence::Retryable),
            ("MODEL_ERROR", false, Consequence::Retryable),
            ("GPU_OOM", false, Consequence::Retryable),
            ("QUEUE_FULL", false, Consequence::Retryable),
            ("RATE_LIMIT", false, Consequence::Retryable),
        ];
        for (code, against, expected) in rows {
            assert_eq!(classify(code, against), expected, "{code}");
            assert_eq!(classify(code, !against), expected, "{code}");
            assert!(is_known(code), "{code}");
        }
        assert_eq!(classify("FULL_MOON", true), Consequence::Retryable);
        assert_eq!(classify("FULL_MOON", false), Consequence::Permanent);
        assert_eq!(
            classify("timeout", false),
            Consequence::Permanent,
            "codes are upper case"
        );
        assert!(!is_known("FULL_MOON") && !is_known(""));
    }
}
