//! The accent colour: whatever a company chooses, text stays readable (WCAG 2.2, success criterion 1.4.3).

use std::{fmt, str::FromStr};

/// An sRGB colour such as `#2747c7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

/// The contrast that text needs.
const READABLE: f64 = 4.5;

impl Colour {
    pub const WHITE: Colour = Colour([255; 3]);
    pub const BLACK: Colour = Colour([0; 3]);

    /// Relative luminance, from 0 (black) to 1 (white), as WCAG defines it.
    fn luminance(self) -> f64 {
        let linear = self.0.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    /// From 1 (none) to 21.
    pub fn contrast(self, other: Colour) -> f64 {
        let (one, other) = (self.luminance(), other.luminance());
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    /// Black or white, whichever is easier to read on this.
    pub fn text_on(self) -> Colour {
        match self.contrast(Colour::WHITE) >= self.contrast(Colour::BLACK) {
            true => Colour::WHITE,
            false => Colour::BLACK,
        }
    }

    /// This colour, darkened or lightened as little as makes it readable on `ground`.
    pub fn readable_on(self, ground: Colour) -> Colour {
        let towards = ground.text_on();
        let mut steps = (0..=100).map(|percent| self.mixed(towards, percent));
        steps.find(|colour| colour.contrast(ground) >= READABLE).unwrap_or(towards)
    }

    fn mixed(self, other: Colour, percent: u32) -> Colour {
        let mut mixed = self.0;
        for (part, other) in mixed.iter_mut().zip(other.0) {
            *part = ((u32::from(*part) * (100 - percent) + u32::from(other) * percent) / 100) as u8;
        }
        Colour(mixed)
    }
}

impl FromStr for Colour {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6).ok_or(())?;
        let mut parts = [0; 3];
        hex::decode_to_slice(digits, &mut parts).map_err(|_| ())?;
        Ok(Colour(parts))
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn colour(text: &str) -> Colour {
        text.parse().unwrap_or_else(|()| panic!("{text} is a colour"))
    }

    #[test]
    fn contrasts_are_those_of_the_standard() {
        assert_eq!(Colour::WHITE.contrast(Colour::BLACK).round(), 21.0);
        assert!((colour("#767676").contrast(Colour::WHITE) - 4.54).abs() < 0.01);
        for text in ["2747c7", "#2747c", "#2747c77", "#2747cg", "red", ""] {
            assert_eq!(text.parse::<Colour>(), Err(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_accent_becomes_readable(parts: [u8; 3], ground: [u8; 3]) {
            let (accent, ground) = (Colour(parts), Colour(ground));
            prop_assert!(accent.contrast(accent.text_on()) >= READABLE);
            prop_assert!(accent.readable_on(ground).contrast(ground) >= READABLE);
            prop_assert_eq!(accent.to_string().parse(), Ok(accent));
        }
    }
}
