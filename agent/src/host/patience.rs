//! Trying again what seems taken.
//!
//! From its fork until it runs its program, a child has a copy of every descriptor of its parent: what was
//! closed a moment ago is then still locked, leased or exclusively open. udev and a control plane that
//! looks whether a server lives take things for as long.

use std::{
    fs::{File, TryLockError},
    thread::sleep,
    time::Duration,
};

/// How often, and how long it is waited between: a fifth of a second for what stays taken.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Does `attempt` until it succeeds, fails for another reason than that `is_taken` knows, or was done
/// often enough. Blocks the thread.
pub fn patiently<T, E>(
    is_taken: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..TRIES {
        match attempt() {
            Err(error) if is_taken(&error) => sleep(PAUSE),
            answer => return answer,
        }
    }
    attempt()
}

/// Locks a file for its process alone.
pub fn lock(file: &File) -> Result<(), TryLockError> {
    let is_taken = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
    patiently(is_taken, || file.try_lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_taken_is_tried_again() {
        let mut tries = 0;
        let answer = patiently(
            |error: &bool| *error,
            || {
                tries += 1;
                if tries == 3 { Ok(tries) } else { Err(true) }
            },
        );
        assert_eq!(answer, Ok(3));

        let mut tries = 0;
        let refused: Result<(), bool> = patiently(
            |error| *error,
            || {
                tries += 1;
                Err(false)
            },
        );
        assert_eq!((refused, tries), (Err(false), 1));
    }

    #[test]
    fn what_stays_taken_is_given_up() {
        let mut tries = 0;
        let taken: Result<(), ()> = patiently(
            |()| true,
            || {
                tries += 1;
                Err(())
            },
        );
        assert_eq!((taken, tries), (Err(()), TRIES));
    }
}
