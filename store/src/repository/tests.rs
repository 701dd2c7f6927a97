//! Whole backups and restores against a model of the image.

mod backups;
mod damage;
mod deaths;
mod order;
mod races;
mod world;
