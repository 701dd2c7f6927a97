//! The path of one request: the whole of it on one screen.
//!
//! - **I1 mark first**: no change reaches the origin before it is marked, and its region's intent
//!   is durable where tracking is.
//! - **I2 preserve first**: no block that a snapshot needs is overwritten before its old data is
//!   published.
//! - **I4 clean cut**: a change is between `enter` and the drop of its pass, and a cut waits for
//!   all of these.
//! - **I5 no cache of ours**: the origin has answered before the host is.
//! - **I7 the volume first**: nothing that happens to a snapshot fails a request.

use tidemark_store::units::BlockRange;

use super::{Clock, Step, Volume, counters::Counted, journal::Watched, plan};
use crate::{
    disk::{Disk, forward},
    request::{Errno, Request},
};

impl<O: Disk, A: Disk, C: Clock> Volume<O, A, C> {
    /// Serves one request of the host; called by many threads or tasks at once.
    ///
    /// Errors are the origin's own, unchanged, or `EINVAL` for a range outside the volume. A
    /// future that is dropped before its end leaves the request half done, as a dying process
    /// does; what it marked and preserved stays.
    pub async fn serve(&self, request: Request<'_>) -> Result<(), Errno> {
        let began_us = self.clock.elapsed_us();
        let counted = Counted::of(&request);
        let answer = self.carry_out(request).await;
        let took_us = self.clock.elapsed_us().saturating_sub(began_us);
        self.counters.count(counted, took_us, answer);
        answer
    }

    async fn carry_out(&self, mut request: Request<'_>) -> Result<(), Errno> {
        self.check(&request)?;
        let Some(change) = plan::change_of(&request, self.geometry, self.discard_zeroes) else {
            return self.forward(&mut request).await;
        };
        let _pass = self.gate.enter(change.touched).await;
        if !self.clock.omits(Step::Mark) {
            self.tracker.mark(&change);
        }
        let _watched = self.make_durable(&request, change.touched).await;
        if !self.clock.omits(Step::Preserve) {
            self.preserve(change.touched).await;
        }
        self.forward(&mut request).await?;
        self.tracker.settle(&change);
        Ok(())
    }

    /// The origin's answer is the host's.
    async fn forward(&self, request: &mut Request<'_>) -> Result<(), Errno> {
        if matches!(request, Request::Flush) && self.clock.omits(Step::ForwardFlush) {
            return Ok(());
        }
        let answer = forward(&self.origin, request).await;
        if self.clock.omits(Step::PassError) {
            return Ok(());
        }
        answer
    }

    /// What the journal must tell before the change is issued.
    async fn make_durable(&self, request: &Request<'_>, blocks: BlockRange) -> Option<Watched<'_>> {
        let bytes = plan::range_of(request)?;
        let mounts = self.mounts_made(request).await;
        let watched = self.journal.watch(bytes, mounts, &self.clock).await;
        let map = || self.tracker.current();
        if !self.clock.omits(Step::TellFirst) {
            self.journal.admit(blocks, map, &self.clock).await;
        }
        watched
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Errno> {
        match plan::range_of(request) {
            Some(range) if !self.geometry.contains(range) => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }
}
