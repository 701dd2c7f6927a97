//! Programs of the host, run within a bound of time and of what they print.

use std::{ffi::OsStr, io, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

use crate::units;

/// Enough for systemd to answer while a machine starts.
pub(crate) const USUAL: Duration = Duration::from_secs(10);
/// What of a program's output is taken unless more is asked for, in bytes.
pub(crate) const SHORT: u64 = 256 << 10;

/// What a program printed, as far as its bound goes.
#[derive(Debug)]
pub(crate) struct Printed {
    /// Whether it ended with status 0.
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// It printed more than this.
    pub(crate) cut: bool,
}

/// Runs a program with nothing to read. An error: it is not there, or does not end within the time; it is
/// killed then.
pub(crate) async fn run(
    program: impl AsRef<OsStr>,
    words: &[&str],
    within: Duration,
    most: u64,
) -> Result<Printed, String> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{name} is not installed"),
        _ => format!("{name}: {error}"),
    };
    let mut child = Command::new(program.as_ref())
        .args(words)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(told)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err) = tokio::join!(take(out, most), take(err, SHORT));
        let status = child.wait().await?;
        Ok::<_, io::Error>((status, out?, err?))
    };
    let (status, (stdout, cut), (stderr, _)) = timeout(within, work)
        .await
        .map_err(|_| format!("{name} does not answer within {}", units::span(within)))?
        .map_err(told)?;
    Ok(Printed {
        succeeded: status.success(),
        stdout,
        stderr,
        cut,
    })
}

/// Reads to the end, keeps the first `most` bytes; whether there were more.
async fn take(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<(String, bool)> {
    let Some(mut pipe) = pipe else {
        return Ok((String::new(), false));
    };
    let mut kept = Vec::new();
    (&mut pipe).take(most).read_to_end(&mut kept).await?;
    let more = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok((String::from_utf8_lossy(&kept).into_owned(), more > 0))
}

/// What `systemctl` printed. An error: it failed, is not there, or does not answer.
pub(crate) async fn systemctl(words: &[&str]) -> Result<String, String> {
    let printed = run("systemctl", words, USUAL, SHORT).await?;
    if printed.succeeded {
        return Ok(printed.stdout);
    }
    let first = printed.stderr.lines().next().unwrap_or_default();
    Err(format!("systemctl {}: {first}", words.join(" ")))
}

/// Whether systemd runs this host.
pub(crate) fn has_systemd() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_bounded_and_the_rest_is_read() {
        let line =
            "i=0; while [ $i -lt 9999 ]; do echo 0123456789; i=$((i+1)); done; echo no >&2; exit 3";
        let printed = run("sh", &["-c", line], Duration::from_secs(60), 22).await;
        let printed = printed.unwrap();
        assert_eq!(printed.stdout, "0123456789\n0123456789\n");
        assert!(printed.cut && !printed.succeeded);
        assert_eq!(printed.stderr, "no\n");
    }

    #[tokio::test]
    async fn what_hangs_or_is_missing_is_told() {
        let hung = run("sleep", &["600"], Duration::from_millis(50), 1).await;
        assert_eq!(
            hung.unwrap_err(),
            "sleep does not answer within 50.0 ms".to_owned()
        );
        let missing = run("/no/such/program", &[], USUAL, 1).await;
        assert_eq!(missing.unwrap_err(), "/no/such/program is not installed");
    }
}
