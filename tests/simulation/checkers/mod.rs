//! The judges: one function for each thing that must hold, each named after its invariant.
//!
//! They compare what the engine says with the model and with the media, and never with what the
//! engine said before. Where nothing may happen in between, they look at once: no other task
//! runs, and the disks answer without delay.

mod diffs;
mod recovery;
mod requests;
mod views;

pub(super) use diffs::{i1_mark_first, i6_superset};
pub(super) use recovery::{everything, i8_nothing_leaks, let_all_go, recovered};
pub(super) use requests::{
    Served, cut_refused, i4_clean_cut, i4_whole_group, i5_no_cache_of_ours,
    i7_nobody_waits_too_long, i7_the_volume_first, i8_bounded, i8_cut_in_time, i8_holds_end,
};
pub(super) use views::{i2_preserve_first, i3_exact_listing, i3_exact_run, i3_exact_views};
