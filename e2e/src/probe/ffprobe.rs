//! What ffprobe says about a recording.
