//! Double entry: what was written to the volume against what reached the interposer.
//!
//! While the volume's table leads to us, each sector that the kernel counts on the volume was
//! counted on our device before: the lower device's request ends first. So when the volume's
//! counter is read first and ours after it, ours has at least as much, whatever is in flight. If
//! the volume has more, that went around us, even when the table has come back meanwhile.
//!
//! The two count from different points, which the baseline remembers. Our device's is exact:
//! before the insertion nothing uses it. The volume's cannot be read at the moment of the swap,
//! which is one call of the kernel; it is what makes the two agree right after it. A sample
//! between two equal readings of our counter errs only by requests that have ended on our device
//! and not yet on the volume, and then always towards too little; so the greatest of many
//! samples over some milliseconds counts.

use std::{thread::sleep, time::Duration};

use crate::host::{device::DeviceNumber, dm::Sectors};

/// Samples in a row that count, how many such rows there are, and the pause between them.
const CLEAN_SAMPLES: u32 = 8;
const ROUNDS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(4);
/// Samples that are tried in a row; under load some have a request end between the readings.
const MAX_SAMPLES: u32 = 400;
/// How often an excess must be seen to be believed.
const CONFIRMATIONS: u32 = 8;

/// Both counters at the insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Baseline {
    pub(super) volume: Sectors,
    pub(super) over: Sectors,
}

/// What was counted since the insertion, in sectors of 512 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ledger {
    /// Written to the volume, whoever served it.
    pub presented: Sectors,
    /// Written to the interposer. More than `presented` by what is just ending.
    pub served: Sectors,
}

impl Ledger {
    /// What was written to the volume and not to the interposer, at least.
    pub fn around(self) -> Sectors {
        self.presented.since(self.served)
    }
}

/// Reads the counters of two devices, the volume's first.
pub(super) trait Counters {
    fn volume(&mut self) -> Option<Sectors>;
    fn over(&mut self) -> Option<Sectors>;
    fn pause(&mut self);
}

pub(super) struct Kernel {
    pub(super) volume: DeviceNumber,
    pub(super) over: DeviceNumber,
}

impl Counters for Kernel {
    fn volume(&mut self) -> Option<Sectors> {
        Sectors::of(self.volume)
    }

    fn over(&mut self) -> Option<Sectors> {
        Sectors::of(self.over)
    }

    fn pause(&mut self) {
        sleep(PAUSE);
    }
}

impl Baseline {
    /// Finds what makes the counters agree now; `over` is where the interposer's counter stood
    /// when nothing had reached it yet. `None` when the kernel does not count.
    pub(super) fn settle(counters: &mut dyn Counters, over: Sectors) -> Option<Self> {
        let mut volume = Sectors::default();
        for round in 0..ROUNDS {
            if round > 0 {
                counters.pause();
            }
            let mut clean = 0;
            for _ in 0..MAX_SAMPLES {
                let before = counters.over()?;
                let counted = counters.volume()?;
                let after = counters.over()?;
                let served = after.since(over);
                // Never above the truth, whether the sample is clean or not.
                volume = at_least(volume, counted.since(served));
                clean += u32::from(before == after);
                if clean == CLEAN_SAMPLES {
                    break;
                }
            }
        }
        Some(Self { volume, over })
    }

    /// What has been counted since. An excess on the volume must show in each of several
    /// readings. `None` when the kernel does not count.
    pub(super) fn ledger(self, counters: &mut dyn Counters) -> Option<Ledger> {
        let mut least: Option<Ledger> = None;
        for _ in 0..CONFIRMATIONS {
            let presented = counters.volume()?.since(self.volume);
            let served = counters.over()?.since(self.over);
            let ledger = Ledger { presented, served };
            if ledger.around().total() == 0 {
                return Some(ledger);
            }
            least = match least {
                Some(least) if least.around().total() <= ledger.around().total() => Some(least),
                _ => Some(ledger),
            };
            counters.pause();
        }
        least
    }
}

fn at_least(one: Sectors, other: Sectors) -> Sectors {
    Sectors {
        written: one.written.max(other.written),
        discarded: one.discarded.max(other.discarded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device under load: each reading finds other requests ended.
    struct Load {
        /// What the volume had counted when the interposer came.
        start: u64,
        ended: u64,
        /// Ended on the interposer, not yet on the volume.
        between: u64,
        around: u64,
        random: u64,
        busy: bool,
    }

    impl Load {
        fn new(busy: bool) -> Self {
            Self {
                start: 5000,
                ended: 0,
                between: 0,
                around: 0,
                random: 99,
                busy,
            }
        }

        fn go_on(&mut self) {
            if !self.busy {
                return;
            }
            self.random = self
                .random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1);
            match self.random >> 60 {
                0..4 => self.between += 8,
                4..8 if self.between > 0 => {
                    self.ended += self.between;
                    self.between = 0;
                }
                _ => (),
            }
        }
    }

    impl Counters for Load {
        fn volume(&mut self) -> Option<Sectors> {
            self.go_on();
            let written = self.start + self.ended + self.around;
            Some(Sectors {
                written,
                discarded: 3,
            })
        }

        fn over(&mut self) -> Option<Sectors> {
            self.go_on();
            let written = 16 + self.ended + self.between;
            Some(Sectors {
                written,
                discarded: 0,
            })
        }

        fn pause(&mut self) {
            self.go_on();
        }
    }

    const UNUSED: Sectors = Sectors {
        written: 16,
        discarded: 0,
    };

    #[test]
    fn the_baseline_is_found_under_load() {
        for busy in [false, true] {
            let mut load = Load::new(busy);
            let baseline = Baseline::settle(&mut load, UNUSED).unwrap();
            assert_eq!(
                baseline.volume,
                Sectors {
                    written: 5000,
                    discarded: 3
                }
            );
            assert_eq!(baseline.over, UNUSED);
        }
    }

    #[test]
    fn requests_in_flight_are_no_bypass_and_a_bypass_is_one() {
        let mut load = Load::new(true);
        let baseline = Baseline::settle(&mut load, UNUSED).unwrap();
        for _ in 0..1000 {
            let ledger = baseline.ledger(&mut load).unwrap();
            assert_eq!(ledger.around(), Sectors::default());
        }
        load.around += 8;
        load.busy = false;
        load.ended += std::mem::take(&mut load.between);
        let ledger = baseline.ledger(&mut load).unwrap();
        assert_eq!(
            ledger.around(),
            Sectors {
                written: 8,
                discarded: 0
            }
        );
    }
}
