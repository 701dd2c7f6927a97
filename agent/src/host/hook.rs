//! Programs of the administrator's that run around a freeze: bounded, in a group of their own, and
//! outside the agent's sandbox where systemd runs it.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::child;

/// What is kept of a program's output: the rest is read and dropped.
const MAX_OUTPUT: u64 = 64 << 10;
/// All that a program finds of our environment: nothing of it is the agent's own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Its absolute path, and its arguments.
    pub words: Vec<String>,
    /// What it is told.
    pub environment: Vec<(String, String)>,
    /// It is ended when it takes longer.
    pub within: Duration,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookEnded {
    /// Why it counts as failed.
    pub failure: Option<String>,
    /// What it printed, at most 64 KiB.
    pub output: String,
}

impl Hook {
    /// Runs it, in a unit of its own if asked. Blocks.
    pub fn run(&self, in_unit: bool) -> HookEnded {
        let failed = |why: String, output: String| HookEnded {
            failure: Some(why),
            output,
        };
        let (words, within) = match in_unit {
            // The unit has the bound; systemd-run ends soon after it.
            true => (self.by_systemd(), self.within + 2 * child::GRACE),
            false => (self.words.clone(), self.within),
        };
        let Some((program, arguments)) = words.split_first() else {
            return failed("it names no program".to_owned(), String::new());
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(self.environment.iter().cloned());
        let begun = Instant::now();
        match bounded(command, within) {
            Err(error) => failed(format!("{program}: {error}"), String::new()),
            Ok((Some(status), output)) if status.success() => HookEnded {
                failure: None,
                output,
            },
            // Of a unit that it ended, systemd says no more than that it failed.
            Ok((_, output)) if begun.elapsed() >= self.within => failed(
                format!("it took more than {:?} and was ended", self.within),
                output,
            ),
            Ok((None, output)) => failed("it was ended".to_owned(), output),
            Ok((Some(status), output)) => failed(format!("it ended with {status}"), output),
        }
    }

    /// The same program as a unit beside ours: `--wait` gives its exit status, `--pipe` its output.
    fn by_systemd(&self) -> Vec<String> {
        let mut words: Vec<String> = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
            .map(ToOwned::to_owned)
            .to_vec();
        words.push("--service-type=exec".to_owned());
        words.push(format!(
            "--property=RuntimeMaxSec={}ms",
            self.within.as_millis()
        ));
        let told = self.environment.iter();
        words.extend(told.map(|(name, value)| format!("--setenv={name}={value}")));
        words.push("--".to_owned());
        words.extend(self.words.iter().cloned());
        words
    }
}

/// No status: it had to be ended.
fn bounded(mut command: Command, within: Duration) -> io::Result<(Option<ExitStatus>, String)> {
    let (reader, writer) = io::pipe()?;
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn()?;
    // It has the pipe's other end too.
    drop(command);
    let output = child::collect(reader, |mut pipe| {
        let mut kept = Vec::new();
        // What cannot be read is not shown, and the program's end tells how it went.
        let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    });
    let status = child::wait(&mut child, within)?;
    if status.is_none() {
        child::end(child);
    }
    Ok((status, child::collected(Some(output)).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str) -> Hook {
        Hook {
            words: ["/bin/sh", "-c", script].map(ToOwned::to_owned).to_vec(),
            environment: vec![("TIDEMARK_VOLUME".to_owned(), "data".to_owned())],
            within: Duration::from_secs(60),
        }
    }

    #[test]
    fn it_is_told_of_what_and_nothing_else() {
        let ended = hook("echo $TIDEMARK_VOLUME; env | grep -c CARGO; echo gone >&2").run(false);
        assert_eq!(
            (ended.failure, ended.output.as_str()),
            (None, "data\n0\ngone\n")
        );
    }

    #[test]
    fn failures_say_how() {
        let ended = hook("echo why; exit 3").run(false);
        assert_eq!(ended.output, "why\n");
        assert_eq!(
            ended.failure.as_deref(),
            Some("it ended with exit status: 3")
        );
        let mut missing = hook("");
        missing.words = vec!["/nonexistent/hook".to_owned()];
        assert!(
            missing
                .run(false)
                .failure
                .is_some_and(|why| why.contains("/nonexistent/hook"))
        );
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_its_children() {
        let mut slow = hook("sleep 600 & echo $!; wait");
        slow.within = Duration::from_millis(100);
        // Long enough for a shell to start, wherever this runs.
        let ended = loop {
            let ended = slow.run(false);
            let failure = ended.failure.clone().unwrap_or_default();
            assert!(failure.contains("took more than"), "{failure}");
            if ended.output.ends_with('\n') {
                break ended;
            }
            slow.within *= 2;
        };
        let stat = format!("/proc/{}/stat", ended.output.trim());
        // It was killed, and may be dying still.
        while std::fs::read_to_string(&stat).is_ok_and(|state| !state.contains(") Z ")) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn systemd_is_told_the_bound_and_the_environment() {
        let words = hook("true").by_systemd();
        assert!(words.contains(&"--property=RuntimeMaxSec=60000ms".to_owned()));
        assert!(words.contains(&"--setenv=TIDEMARK_VOLUME=data".to_owned()));
        assert!(words.ends_with(&["--", "/bin/sh", "-c", "true"].map(ToOwned::to_owned)));
    }
}
