//! A terminal that a program believes in.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
    unistd::ttyname,
};
use tidemark_tests::programs::succeed;

/// One with a program on it.
pub(crate) struct Terminal {
    keyboard: File,
    /// Kept open, so that the terminal stays when the program has ended.
    line: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Starts a program with it as its controlling terminal.
    pub(crate) fn run(command: &Command) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).expect("a terminal can be made");
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a flag can be set");
        }
        let end = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("a program can be started");
        let keyboard = File::from(pair.master);
        let mut screen = keyboard.try_clone().expect("a descriptor");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len) = screen.read(&mut bytes) {
                kept.lock().expect("nobody panicked").extend(&bytes[..len]);
            }
        });
        Self {
            keyboard,
            line: pair.slave,
            shown,
            child,
        }
    }

    /// Everything that was sent to it.
    pub(crate) fn shown(&self) -> String {
        let shown = self.shown.lock().expect("nobody panicked");
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        let pressed = self.keyboard.write_all(keys.as_bytes());
        pressed.expect("a terminal takes keys");
    }

    /// Makes the window another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let path: PathBuf = ttyname(&self.line).expect("a terminal has a name");
        succeed(Command::new("stty").arg("-F").arg(path).args([
            "rows",
            &rows.to_string(),
            "columns",
            &columns.to_string(),
        ]));
    }

    /// Whether keys are shown as they are pressed, as a shell needs it.
    pub(crate) fn echoes(&self) -> bool {
        let settings = tcgetattr(&self.line).expect("a terminal has settings");
        settings.local_flags.contains(LocalFlags::ECHO)
    }

    /// Its program's exit code, once it ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let ended = self.child.try_wait().expect("a child can be waited for");
        ended.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, where the story came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
