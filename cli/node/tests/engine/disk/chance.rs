//! What becomes of what was not durable when the power goes: drawn from a seed.

/// splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) struct Chance {
    state: u64,
    mood: Mood,
}

#[derive(Clone, Copy)]
enum Mood {
    /// Nothing is kept that was not made durable.
    Forgetful,
    /// Each piece is kept, lost or torn for itself.
    Fickle,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Self { state: seed, mood: Mood::Fickle };
        if chance.next().is_multiple_of(3) {
            chance.mood = Mood::Forgetful;
        }
        chance
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether the next piece is lost.
    pub(crate) fn loses(&mut self) -> bool {
        match self.mood {
            Mood::Forgetful => true,
            Mood::Fickle => self.next().is_multiple_of(2),
        }
    }

    /// How many of `all` sectors of a page that is not lost were written.
    pub(crate) fn sectors(&mut self, all: usize) -> usize {
        if matches!(self.mood, Mood::Fickle) && self.next().is_multiple_of(4) {
            return usize::try_from(self.next() % all as u64).expect("small");
        }
        all
    }
}
