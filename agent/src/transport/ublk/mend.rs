//! What older drivers need before a device is taken up, and to be taken up soon.
//!
//! Linux before 6.15 forgets a dead server's half-made beginnings only when asked to recover, and
//! then trusts that every queue had been ready once: a server that died between asking and the
//! readiness of its last queue leaves a device that nobody can take up any more (EINVAL for ever),
//! or one whose recovery makes the kernel follow a null pointer. So each queue that is not ready
//! is made ready first, by a thread that ends at once: then every queue had a server, all are dead,
//! and recovery begins as after any other death. All commands go to the kernel in one call, which
//! no signal cuts in two; where queues are ready already the driver refuses them, which is as good.
//!
//! These drivers notice a death by cancelling commands that wait for requests. With every slot of a
//! queue busy there is none, and they wait for a timeout of 30 s. One slot is kept out of use.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use io_uring::{IoUring, opcode, squeue, types};
use libublk::sys;

/// How long a dead server may take to close its device.
const CLOSING: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// Where no memory of any process is. Nothing is dispatched before a recovery has ended; if it
/// were, copying would fail.
const NOBODYS: u64 = 4096;

/// Makes the queues of a device ready that no server runs.
pub(super) fn make_ready(id: u32, queues: u16, depth: u16) -> io::Result<()> {
    let mend = move || fetch_all(id, queues, depth);
    let thread = thread::Builder::new().name("mend".to_owned()).spawn(mend)?;
    let done = thread.join();
    done.map_err(|_| io::Error::other("the thread that mends a device died"))?
}

fn fetch_all(id: u32, queues: u16, depth: u16) -> io::Result<()> {
    let device = open(id)?;
    let slots = u32::from(queues) * u32::from(depth);
    let mut ring = IoUring::new(slots.next_power_of_two())?;
    let fd = types::Fd(device.as_raw_fd());
    for queue in 0..queues {
        for tag in 0..depth {
            let fetch = opcode::UringCmd16::new(fd, sys::UBLK_U_IO_FETCH_REQ)
                .cmd(command(queue, tag))
                .build();
            push(&mut ring, &fetch)?;
        }
    }
    ring.submit()?;
    Ok(())
}

/// As `struct ublksrv_io_cmd` of linux/ublk_cmd.h: queue, tag, result, address.
fn command(queue: u16, tag: u16) -> [u8; 16] {
    let mut command = [0; 16];
    command[0..2].copy_from_slice(&queue.to_ne_bytes());
    command[2..4].copy_from_slice(&tag.to_ne_bytes());
    command[8..16].copy_from_slice(&NOBODYS.to_ne_bytes());
    command
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: the command holds no pointer that the kernel may write through (see NOBODYS), and
    // the ring is dropped before the device that it names is closed.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(io::Error::other)
}

/// Opens the device as its server. A dead one has it open until the kernel is done with it.
fn open(id: u32) -> io::Result<fs::File> {
    let path = format!("/dev/ublkc{id}");
    let since = Instant::now();
    loop {
        match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && since.elapsed() < CLOSING =>
            {
                thread::sleep(PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Keeps one slot of each queue of a new device out of use.
pub(super) fn spare_a_slot(id: u32, depth: u16) -> io::Result<()> {
    let queue = format!("/sys/block/ublkb{id}/queue");
    // With a scheduler the limit would be one of what waits, and not of what is under way.
    fs::write(format!("{queue}/scheduler"), "none")?;
    let usable = depth.saturating_sub(1).max(1);
    fs::write(format!("{queue}/nr_requests"), usable.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_laid_out_as_the_driver_reads_it() {
        let command = command(3, 258);
        let sized = size_of::<sys::ublksrv_io_cmd>();
        assert_eq!(command.len(), sized);
        assert_eq!(command[0..4], [3, 0, 2, 1]);
        assert_eq!(command[8..16], NOBODYS.to_ne_bytes());
    }
}
