//! Whole backups and restores against a model of the image.

mod backups;
mod between;
mod clients;
mod damage;
mod deaths;
mod fragments;
mod order;
mod races;
mod repeats;
mod world;
