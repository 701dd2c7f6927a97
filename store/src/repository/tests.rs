//! Whole backups and restores against a model of the image.

mod backups;
mod world;
