//! Stand-in speech-to-speech service: the server side of the STS fragment protocol.

fn main() {}
