//! Reads the RTMP output as a late player would.
