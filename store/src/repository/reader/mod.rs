//! Reading recovery points: any range of one, or all of it onto a target.

mod image;
mod restore;

pub use image::Image;
pub use restore::{Onto, Restored, Target};
