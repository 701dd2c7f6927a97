//! What the data plane's threads can do with each other, explored by loom: every order of their
//! steps up to a stated number of preemptions, and every value that a word may show under its
//! memory ordering.
//!
//! Each check comes with mistakes that it must see. Run them by `make concurrency`; an ordinary
//! build has nothing here.

#![cfg(all(loom, test))]

mod changes;
mod explore;
mod gate;
mod gates;
mod index;
mod layers;
