//! Fragment ids: UUID version 4 in shape, from a seeded generator, so that a run can be replayed.

use std::fmt;

/// Identity of one fragment on the wire. Prints as a hyphenated lower-case UUID.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct FragmentId(pub u128);

impl FragmentId {
    /// Reads a hyphenated UUID in any case; servers are known to answer in upper case.
    ///
    /// `None` for anything else: an id of another shape was never ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut value = 0_u128;
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 8 | 13 | 18 | 23) {
                if *byte != b'-' {
                    return None;
                }
            } else {
                value = (value << 4) | u128::from(char::from(*byte).to_digit(16)?);
            }
        }
        Some(Self(value))
    }
}

impl fmt::Display for FragmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

/// Makes ids from a seed with SplitMix64: not for secrets, but distinct and repeatable.
#[derive(Clone, Debug)]
pub(crate) struct FragmentIds {
    state: u64,
}

impl FragmentIds {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> FragmentId {
        let raw = (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64());
        let version = (raw & !(0xf << 76)) | (0x4 << 76);
        let variant = (version & !(0x3 << 62)) | (0x2 << 62);
        FragmentId(variant)
    }

    fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_version_4_uuids_and_survive_a_round_trip_in_any_case() {
        let mut ids = FragmentIds::new(7);
        for _ in 0..1000 {
            let id = ids.next();
            let text = id.to_string();
            assert_eq!(text.len(), 36);
            assert_eq!(&text[14..15], "4", "{text}");
            assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
            assert_eq!(FragmentId::parse(&text), Some(id));
            assert_eq!(FragmentId::parse(&text.to_uppercase()), Some(id));
        }
    }

    #[test]
    fn anything_else_is_not_an_id() {
        for text in [
            "",
            "not-a-uuid",
            "00000000-0000-0000-0000-00000000000",
            "00000000-0000-0000-0000-0000000000000",
            "000000000000000000000000000000000000",
            "g0000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-00000000000é",
        ] {
            assert_eq!(FragmentId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_seed_decides_and_ids_do_not_repeat() {
        let take = |seed| -> BTreeSet<_> {
            let mut ids = FragmentIds::new(seed);
            (0..10_000).map(|_| ids.next()).collect()
        };
        assert_eq!(take(1).len(), 10_000);
        assert_eq!(take(1), take(1));
        assert!(take(1).is_disjoint(&take(2)));
    }
}
