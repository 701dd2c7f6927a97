//! What a queue thread sleeps on: completions of its ring, and tasks that other threads wake.
//!
//! A cut opens the gate on the control thread, and requests that waited there are tasks of a
//! queue thread that may sleep in `io_uring_enter`. So the executor's waker writes to an eventfd
//! that the ring polls, but only while the thread sleeps: waking costs no call otherwise.

use std::{
    io,
    os::fd::AsRawFd,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use async_executor::LocalExecutor;
use io_uring::{opcode, types};
use libublk::{
    UblkUringData,
    io::{UblkQueue, with_task_io_ring_mut},
    uring_async::{ublk_reap_io_events_with_update_queue, ublk_submit_sqe_async, ublk_wake_task},
};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one queue thread.
struct Bell {
    event: EventFd,
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, SeqCst);
        if self.asleep.swap(false, SeqCst)
            && let Err(error) = self.event.write(1)
        {
            tracing::error!(%error, "a queue thread could not be woken");
        }
    }
}

/// Runs the tasks of `executor` and reaps the queue's ring until `done` says so.
pub(super) fn run(
    executor: &LocalExecutor<'_>,
    queue: &UblkQueue<'_>,
    done: impl Fn() -> bool,
) -> io::Result<()> {
    let bell = Arc::new(Bell {
        event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        rung: AtomicBool::new(true),
        asleep: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    executor.spawn(hear(Arc::clone(&bell))).detach();
    let mut tasks = pin!(executor.run(std::future::pending::<()>()));
    while !done() {
        bell.rung.store(false, SeqCst);
        let _ = tasks.as_mut().poll(&mut context);
        if done() {
            break;
        }
        bell.asleep.store(true, SeqCst);
        let wait = usize::from(!bell.rung.load(SeqCst));
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
    Ok(())
}

/// Lets the bell end a wait in the ring. Polled and not read: a poll has no buffer that could be
/// freed before the kernel is done with it.
async fn hear(bell: Arc<Bell>) {
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
