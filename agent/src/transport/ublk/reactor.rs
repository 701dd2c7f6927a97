//! What a queue thread sleeps on: completions of its ring, and tasks that other threads wake.
//!
//! A cut opens the gate on the control thread, and requests that waited there are tasks of a
//! queue thread that may sleep in `io_uring_enter`. So a wake writes to an eventfd that the ring
//! polls, but only while the thread sleeps: waking costs no call otherwise.

use std::{
    io,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use io_uring::{opcode, types};
use libublk::{
    UblkUringData,
    io::{UblkQueue, with_task_io_ring_mut},
    uring_async::{ublk_reap_io_events_with_update_queue, ublk_submit_sqe_async, ublk_wake_task},
};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::tasks::{Bell, Tasks};

/// Ends the sleep of one queue thread.
struct Eventfd {
    event: EventFd,
    asleep: AtomicBool,
}

impl Bell for Eventfd {
    fn ring(&self) {
        if self.asleep.load(SeqCst)
            && self.asleep.swap(false, SeqCst)
            && let Err(error) = self.event.write(1)
        {
            tracing::error!(%error, "a queue thread could not be woken");
        }
    }
}

/// Runs `futures` and reaps the queue's ring until `done` says so.
pub(super) fn run<'a>(
    futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = ()> + 'a>>>,
    queue: &UblkQueue<'_>,
    done: impl Fn() -> bool,
) -> io::Result<()> {
    let bell = Arc::new(Eventfd {
        event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        asleep: AtomicBool::new(false),
    });
    let hear: Pin<Box<dyn Future<Output = ()>>> = Box::pin(hear(Arc::clone(&bell)));
    let futures = futures.into_iter().chain([hear]);
    let mut tasks = Tasks::new(futures, Arc::clone(&bell));
    loop {
        tasks.round();
        if done() {
            return Ok(());
        }
        // Before the look at the tasks: whoever wakes one after that look rings.
        bell.asleep.store(true, SeqCst);
        let wait = usize::from(!tasks.any_ready());
        let entered = with_task_io_ring_mut(|ring| ring.submit_and_wait(wait));
        bell.asleep.store(false, SeqCst);
        match entered {
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
        ublk_reap_io_events_with_update_queue(queue, false, None, |completed| {
            ublk_wake_task(completed.user_data(), completed);
        })
        .map_err(io::Error::other)?;
    }
}

/// Lets the bell end a wait in the ring. Polled and not read: a poll has no buffer that could be
/// freed before the kernel is done with it.
async fn hear(bell: Arc<Eventfd>) {
    const READABLE: u32 = 1;
    let fd = types::Fd(bell.event.as_raw_fd());
    loop {
        let poll = opcode::PollAdd::new(fd, READABLE).build();
        let heard = ublk_submit_sqe_async(poll, UblkUringData::Target as u64).await;
        if heard.is_ok_and(|result| result < 0) {
            tracing::error!("the ring refuses to poll: queue threads may wake late");
            return;
        }
        // EAGAIN: somebody rang and it was read before.
        let _ = bell.event.read();
    }
}
