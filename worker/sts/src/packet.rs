//! Engine.IO 4 and Socket.IO 5 packets in text messages.

use std::time::Duration;

use serde::Deserialize;
use sts_protocol::limits;

/// Binary attachments an event may have; the protocol's answers have one.
pub(crate) const MAX_ATTACHMENTS: u64 = 8;

/// A text message, as far as its meaning for the link goes.
#[derive(Debug, PartialEq)]
pub enum Packet<'a> {
    /// The transport is open.
    Open(Open),
    /// The transport is to be closed.
    Close,
    /// To be answered with the same bytes.
    Ping(&'a str),
    /// The namespace is joined.
    Connect,
    /// The namespace is left.
    Disconnect,
    /// The namespace is refused, with this JSON.
    Refused(&'a str),
    /// An event, with the number of attachments that follow.
    Event {
        /// How many binary messages belong to it.
        attachments: u64,
        /// It is for the namespace we are in.
        ours: bool,
        /// The array of name and values.
        json: &'a str,
    },
    /// Nothing that matters here.
    Nothing,
    /// Not a packet.
    Odd(&'static str),
}

/// What the transport says of itself; absent or odd numbers are none.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Open {
    ping_interval: Option<f64>,
    ping_timeout: Option<f64>,
}

impl Open {
    /// The silence that means death: ping interval and timeout, within 1 s and 5 min; the usual ones
    /// where the handshake does not say, or says that there is no time at all.
    pub(crate) fn silence(&self) -> Duration {
        const SHORTEST: Duration = Duration::from_secs(1);
        const LONGEST: Duration = Duration::from_mins(5);
        let usual = limits::PING_INTERVAL + limits::PING_TIMEOUT;
        let (Some(interval), Some(timeout)) = (self.ping_interval, self.ping_timeout) else {
            return usual;
        };
        let sum = (interval + timeout) / 1e3;
        if sum <= 0.0 {
            return usual;
        }
        Duration::try_from_secs_f64(sum)
            .unwrap_or(LONGEST)
            .clamp(SHORTEST, LONGEST)
    }
}

/// Reads a text message.
pub fn read(text: &str) -> Packet<'_> {
    let mut chars = text.chars();
    let kind = chars.next();
    let rest = chars.as_str();
    match kind {
        // Whatever it says of itself, it is open.
        Some('0') => Packet::Open(serde_json::from_str(rest).unwrap_or_default()),
        Some('1') => Packet::Close,
        Some('2') => Packet::Ping(rest),
        Some('3' | '6') => Packet::Nothing,
        Some('4') => message(rest),
        _ => Packet::Odd("a message that is no Engine.IO packet"),
    }
}

fn message(text: &str) -> Packet<'_> {
    const NO_PACKET: Packet<'_> = Packet::Odd("a message that is no Socket.IO packet");
    let mut chars = text.chars();
    let kind = chars.next();
    let mut rest = chars.as_str();
    let mut attachments = 0;
    if matches!(kind, Some('5' | '6')) {
        let Some((count, behind)) = rest.split_once('-') else {
            return NO_PACKET;
        };
        let Ok(count) = count.parse() else {
            return NO_PACKET;
        };
        (attachments, rest) = (count, behind);
    }
    let mut ours = true;
    if rest.starts_with('/') {
        let (namespace, behind) = rest.split_once(',').unwrap_or((rest, ""));
        ours = matches!(
            namespace
                .split_once('?')
                .map_or(namespace, |(name, _)| name),
            "/"
        );
        rest = behind;
    }
    match (kind, ours) {
        (Some('0'), true) => Packet::Connect,
        (Some('1'), true) => Packet::Disconnect,
        (Some('4'), true) => Packet::Refused(rest),
        (Some('2' | '5'), _) => Packet::Event {
            attachments,
            ours,
            // The number of an acknowledgement nobody will give.
            json: rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        },
        // What belongs to an acknowledgement nobody asked for has to be passed over too.
        (Some('6'), _) => Packet::Event {
            attachments,
            ours: false,
            json: "",
        },
        (Some('0'..='4'), _) => Packet::Nothing,
        _ => NO_PACKET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_told_apart() {
        let event = |attachments, ours, json| Packet::Event {
            attachments,
            ours,
            json,
        };
        for (text, expected) in [
            ("1", Packet::Close),
            ("2probe", Packet::Ping("probe")),
            ("3", Packet::Nothing),
            ("6", Packet::Nothing),
            ("40", Packet::Connect),
            ("40{\"sid\":\"x\"}", Packet::Connect),
            ("40/,{}", Packet::Connect),
            ("40/other,{}", Packet::Nothing),
            ("41", Packet::Disconnect),
            ("41/other,", Packet::Nothing),
            (
                "44{\"message\":\"no\"}",
                Packet::Refused("{\"message\":\"no\"}"),
            ),
            ("42[\"a\"]", event(0, true, "[\"a\"]")),
            ("4217[\"a\"]", event(0, true, "[\"a\"]")),
            ("42/,[\"a\"]", event(0, true, "[\"a\"]")),
            ("42/other,[\"a\"]", event(0, false, "[\"a\"]")),
            ("43[]", Packet::Nothing),
            ("451-[\"a\"]", event(1, true, "[\"a\"]")),
            ("452-/,9[\"a\"]", event(2, true, "[\"a\"]")),
            ("461-[]", event(1, false, "")),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in [
            "",
            "x",
            "4",
            "49",
            "é",
            "45[]",
            "45-[]",
            "45-1-[]",
            "4599999999999999999999-[]",
        ] {
            assert!(matches!(read(text), Packet::Odd(_)), "{text}");
        }
    }

    #[test]
    fn silence_is_the_handshakes_within_bounds() {
        for (text, seconds) in [
            (
                r#"0{"sid":"x","pingInterval":25000,"pingTimeout":20000}"#,
                45,
            ),
            (r#"0{"pingInterval":60000.0,"pingTimeout":60000}"#, 120),
            (r#"0{"pingInterval":1,"pingTimeout":1}"#, 1),
            (r#"0{"pingInterval":-5,"pingTimeout":0}"#, 35),
            (r#"0{"pingInterval":0,"pingTimeout":0}"#, 35),
            (r#"0{"pingInterval":1e300,"pingTimeout":0}"#, 300),
            (r#"0{"pingInterval":25000}"#, 35),
            (r#"0{"pingInterval":"x","pingTimeout":3}"#, 35),
            ("0", 35),
            ("0[[[", 35),
        ] {
            let Packet::Open(open) = read(text) else {
                panic!("{text}")
            };
            assert_eq!(open.silence(), Duration::from_secs(seconds), "{text}");
        }
    }
}
