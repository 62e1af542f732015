//! Wire types, limits and error codes of the STS fragment protocol 1.0.
