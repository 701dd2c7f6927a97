//! One hardware queue: a thread, its ring, and a task for each request that may be in flight.

use std::{cell::Cell, io, pin::Pin, time::Duration};

use async_io::Timer;
use libublk::{
    BufDesc, UblkError,
    helpers::IoBuf,
    io::{UblkDev, UblkQueue},
    sys,
};

use super::{
    reactor,
    requests::{Answerer, Pages},
};
use crate::{disk::ring::adopt_ring, transport::Backend};

/// Registering pages by hand, where the driver could not, is tried so often and so long apart.
const REGISTER_ATTEMPTS: u32 = 100;
const REGISTER_PAUSE: Duration = Duration::from_millis(20);

/// Serves queue `number` until the device is taken away. Runs on a thread of its own.
///
/// Every slot's first command is made in the first round, and they go to the kernel in one call:
/// so a death never leaves a queue half ready, which older drivers could not bear (`mend.rs`).
pub(super) fn serve<B: Backend>(
    device: &UblkDev,
    number: u16,
    answerer: Answerer<B>,
) -> io::Result<()> {
    let queue = UblkQueue::new(number, device).map_err(super::device::to_io)?;
    adopt_ring();
    let left = Cell::new(queue.tags().count());
    let futures = queue.tags().map(|tag| {
        let future = slot(&queue, tag, &answerer, &left);
        Box::pin(future) as Pin<Box<dyn Future<Output = ()> + '_>>
    });
    reactor::run(futures, &queue, || left.get() == 0)
}

/// Serves what comes in one slot, one request after the other; counts itself out of `left`.
async fn slot<B: Backend>(
    queue: &UblkQueue<'_>,
    tag: u16,
    answerer: &Answerer<B>,
    left: &Cell<usize>,
) {
    let ended = if queue.support_auto_buf_zc() {
        without_copying(queue, tag, answerer).await
    } else {
        copying(queue, tag, answerer).await
    };
    if let Err(error) = ended
        && !matches!(error, UblkError::QueueIsDown)
    {
        tracing::error!(tag, error = %super::device::to_io(error), "a ublk request slot ended");
    }
    left.set(left.get() - 1);
}

async fn copying<B: Backend>(
    queue: &UblkQueue<'_>,
    tag: u16,
    answerer: &Answerer<B>,
) -> Result<(), UblkError> {
    let largest = usize::try_from(queue.dev.dev_info.max_io_buf_bytes).unwrap_or(0);
    let mut buffer = IoBuf::<u8>::new(largest);
    queue
        .submit_io_prep_cmd(tag, BufDesc::Slice(buffer.as_slice()), 0, Some(&buffer))
        .await?;
    loop {
        let asked = *queue.get_iod(tag);
        let answer = answerer
            .answer(asked, Pages::Copied(buffer.as_mut_slice()))
            .await;
        queue
            .submit_io_commit_cmd(tag, BufDesc::Slice(buffer.as_slice()), answer)
            .await?;
    }
}

async fn without_copying<B: Backend>(
    queue: &UblkQueue<'_>,
    tag: u16,
    answerer: &Answerer<B>,
) -> Result<(), UblkError> {
    let registration = sys::ublk_auto_buf_reg {
        index: tag,
        // A driver that cannot register the pages then says so, and does not fail the host.
        flags: u8::try_from(sys::UBLK_AUTO_BUF_REG_FALLBACK).unwrap_or(1),
        ..Default::default()
    };
    queue
        .submit_io_prep_cmd(tag, BufDesc::AutoReg(registration), 0, None)
        .await?;
    loop {
        let asked = *queue.get_iod(tag);
        let by_hand = asked.op_flags & sys::UBLK_IO_F_NEED_REG_BUF != 0;
        let answer = match by_hand {
            true => match register(queue, tag).await {
                0.. => answerer.answer(asked, Pages::Registered(tag)).await,
                refused => refused,
            },
            false => answerer.answer(asked, Pages::Registered(tag)).await,
        };
        if by_hand {
            queue.submit_unregister_io_buf(tag, tag).await;
        }
        queue
            .submit_io_commit_cmd(tag, BufDesc::AutoReg(registration), answer)
            .await?;
    }
}

/// The driver was short of memory: the host rather waits than sees an error.
async fn register(queue: &UblkQueue<'_>, tag: u16) -> i32 {
    let mut result = -libc::ENOMEM;
    for _ in 0..REGISTER_ATTEMPTS {
        result = queue.submit_register_io_buf(tag, tag).await;
        if result >= 0 {
            break;
        }
        Timer::after(REGISTER_PAUSE).await;
    }
    result
}
