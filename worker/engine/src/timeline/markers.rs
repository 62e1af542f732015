//! RTP's marker bit, which should end a picture (RFC 6184, 5.1).

/// Whether RTP's marker stands at the end of every picture. Some encoders put it on every slice, and then
/// only the next picture tells where one ends: that is taken for granted until two pictures in a row had
/// one marker each.
#[derive(Clone, Debug, Default)]
pub struct Markers {
    timestamp: Option<u32>,
    /// Of the packets with that timestamp.
    seen: u32,
    /// Pictures in a row that had one.
    sane: u32,
}

impl Markers {
    /// A packet with this timestamp came, in order.
    pub fn packet(&mut self, timestamp: u32, marker: bool) {
        if self.timestamp.replace(timestamp) != Some(timestamp) {
            self.sane = if self.seen == 1 { self.sane + 1 } else { 0 };
            self.seen = 0;
        }
        self.seen += u32::from(marker);
        if self.seen > 1 {
            self.sane = 0;
        }
    }

    /// Whether a marker can be believed to end a picture.
    pub fn end_pictures(&self) -> bool {
        self.sane >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(packets: &[(u32, bool)]) -> Vec<bool> {
        let mut markers = Markers::default();
        let look = |(timestamp, marker): &(u32, bool)| {
            markers.packet(*timestamp, *marker);
            markers.end_pictures()
        };
        packets.iter().map(look).collect()
    }

    #[test]
    fn markers_end_pictures_once_two_had_one_each() {
        let good = [(0, false), (0, true), (3, true), (6, false), (6, true)];
        assert_eq!(trusted(&good), [false, false, false, true, true]);
        let none = [(0, false), (3, false), (6, false), (9, false)];
        assert_eq!(trusted(&none), [false; 4]);
    }

    #[test]
    fn a_marker_on_every_slice_is_never_trusted_or_no_longer() {
        let slices = [
            (0, true),
            (0, true),
            (3, true),
            (3, true),
            (6, true),
            (6, true),
        ];
        assert_eq!(trusted(&slices), [false; 6]);
        let later = [
            (0, true),
            (3, true),
            (6, true),
            (9, true),
            (9, true),
            (12, true),
        ];
        assert_eq!(trusted(&later), [false, false, true, true, false, false]);
    }
}
