//! `tidemark doctor`: what this host can do, why not the rest, and what mends it.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

use serde_json::json;
use tidemark_proto::v1::{Feature, GetServerInfoRequest};

use crate::{
    context::Context,
    exit::{Exit, Fault, Report},
    json as as_json,
};

/// One thing that was looked at.
struct Check {
    name: &'static str,
    /// What was found, or what is wrong.
    result: Result<String, String>,
    /// A command or step that mends it.
    mend: &'static str,
}

/// Looks at the host, asks the daemon, prints both.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let checks = local_checks(&context.socket);
    let asked = ask(context).await;
    let missing = checks.iter().filter(|check| check.result.is_err()).count();
    let info = asked.as_ref().ok();
    context.out.document(&json!({
        "checks": checks.iter().map(|check| json!({
            "name": check.name,
            "ok": check.result.is_ok(),
            "detail": match &check.result { Ok(text) | Err(text) => text },
            "mend": if check.result.is_ok() { "" } else { check.mend },
        })).collect::<Vec<_>>(),
        "server": info.map(as_json::server_info),
    }));
    for check in &checks {
        match &check.result {
            Ok(found) => context.out.line(format!("ok   {:<14} {found}", check.name)),
            Err(wrong) => {
                context.out.line(format!("NO   {:<14} {wrong}", check.name));
                context
                    .out
                    .line(format!("     {:<14} mend: {}", "", check.mend));
            }
        }
    }
    match asked {
        Ok(info) => {
            context.out.line(format!(
                "\ntidemarkd {} (API {}) on kernel {}:",
                info.version, info.api_version, info.kernel_release
            ));
            info.features
                .iter()
                .for_each(|feature| context.out.line(feature_line(feature)));
            Ok(())
        }
        Err(error) => {
            let report = Report::of(&error);
            let message = format!(
                "{error:#}; {missing} of {} local checks failed",
                checks.len()
            );
            Err(Fault::new(report.exit, message)
                .advise("mend what is marked NO above, then start `tidemarkd serve`")
                .into())
        }
    }
}

async fn ask(context: &Context) -> anyhow::Result<tidemark_proto::v1::GetServerInfoResponse> {
    let client = context.client().await?;
    let reply = client
        .agent()
        .get_server_info(GetServerInfoRequest {})
        .await;
    reply.map(tonic::Response::into_inner).map_err(|status| {
        let exit = Report::of(&anyhow::Error::new(status.clone())).exit;
        let fault = Fault::new(
            exit,
            format!(
                "the daemon does not say what it can do: {}",
                status.message()
            ),
        );
        if exit == Exit::Failed {
            fault.advise("upgrade tidemarkd")
        } else {
            fault
        }
        .into()
    })
}

fn feature_line(feature: &Feature) -> String {
    if feature.available {
        format!("ok   {}", feature.name)
    } else {
        format!("NO   {}: {}", feature.name, feature.reason)
    }
}

fn local_checks(socket: &Path) -> Vec<Check> {
    vec![
        Check {
            name: "tidemarkd",
            result: find_program("tidemarkd")
                .map(|path| path.display().to_string())
                .ok_or_else(|| "neither beside this command nor in PATH".to_owned()),
            mend: "install the agent, or add its directory to PATH",
        },
        Check {
            name: "socket",
            result: check_socket(socket),
            mend: "systemctl start tidemarkd, or: tidemarkd serve",
        },
        Check {
            name: "root",
            result: if nix::unistd::geteuid().is_root() {
                Ok("running as root".to_owned())
            } else {
                Err(
                    "not root: the daemon answers members of its group, the demo needs root"
                        .to_owned(),
                )
            },
            mend: "sudo tidemark ..., or join the group that owns the socket",
        },
        Check {
            name: "fuse",
            result: check_device("/dev/fuse"),
            mend: "modprobe fuse",
        },
        Check {
            name: "loop devices",
            result: check_device("/dev/loop-control"),
            mend: "modprobe loop",
        },
        Check {
            name: "fusermount3",
            result: find_in_path("fusermount3")
                .map(|path| path.display().to_string())
                .ok_or_else(|| "not in PATH".to_owned())
                .or_else(|wrong| {
                    // Root mounts without it.
                    if nix::unistd::geteuid().is_root() {
                        Ok("not needed by root".to_owned())
                    } else {
                        Err(wrong)
                    }
                }),
            mend: "apt-get install fuse3",
        },
    ]
}

fn check_socket(socket: &Path) -> Result<String, String> {
    use std::os::unix::fs::FileTypeExt;
    let metadata =
        std::fs::metadata(socket).map_err(|error| format!("{}: {error}", socket.display()))?;
    if !metadata.file_type().is_socket() {
        return Err(format!("{} is no socket", socket.display()));
    }
    std::os::unix::net::UnixStream::connect(socket)
        .map(|_| format!("{} answers", socket.display()))
        .map_err(|error| format!("{}: {error}", socket.display()))
}

fn check_device(path: &str) -> Result<String, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(|_: File| format!("{path} opens"))
        .map_err(|error| format!("{path}: {error}"))
}

/// A program beside this one, else in PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(name)));
    beside
        .filter(|path| is_program(path))
        .or_else(|| find_in_path(name))
}

/// A program in PATH, or where administration programs live when PATH leaves that out.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_and_a_directory_is_none() {
        assert!(find_in_path("sh").is_some());
        assert!(find_in_path("no-such-program-at-all").is_none());
        assert!(!is_program(Path::new("/usr")));
    }

    #[test]
    fn a_missing_socket_says_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_socket(&dir.path().join("s")).is_err());
        assert!(check_socket(dir.path()).unwrap_err().contains("no socket"));
    }
}
