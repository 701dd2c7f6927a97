//! The daemon's programs, units, socket, group, and what is beside them.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use nix::unistd::Group;

use super::check::Check;
use crate::{
    cmd::status::overview::{Daemon, Overview},
    exit::Exit,
    host::{command, program::find_program},
};

const UNITS: [&str; 2] = ["tidemarkd.socket", "tidemarkd.service"];
const RULES: [&str; 3] = [
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
    "/etc/udev/rules.d",
];

/// All of these.
pub(super) async fn checks(socket: &Path, group: &str, overview: &Overview) -> Vec<Check> {
    let mut checks = vec![program()];
    checks.extend(units(overview).await);
    checks.push(daemon(socket, overview));
    checks.push(permissions(socket));
    checks.push(group_of(group));
    checks.push(rule(&RULES));
    checks
}

fn program() -> Check {
    match find_program("tidemarkd") {
        Some(path) => Check::ok("tidemarkd", path.display().to_string()),
        None => Check::missing(
            "tidemarkd",
            "neither beside this command nor in PATH",
            "apt install ./tidemark.deb",
        ),
    }
}

/// Whether the daemon comes back with the host.
async fn units(overview: &Overview) -> Vec<Check> {
    if !overview.systemd {
        return vec![Check::advice(
            "units",
            "systemd does not run this host: nobody starts the daemon, and volumes are not served early",
            "start `tidemarkd serve` by what runs this host",
        )];
    }
    let mut checks = Vec::new();
    for unit in UNITS {
        checks.push(enabled(unit, state_of(unit).await));
    }
    checks
}

/// `enabled`, `disabled`, `not-found`: it prints the state and ends with another status.
async fn state_of(unit: &str) -> Result<String, String> {
    let words = ["is-enabled", unit];
    let printed = command::run("systemctl", &words, command::USUAL, command::SHORT).await?;
    let said = format!("{}{}", printed.stdout, printed.stderr);
    Ok(said.lines().next().unwrap_or("not-found").trim().to_owned())
}

fn enabled(unit: &str, state: Result<String, String>) -> Check {
    match state.as_deref() {
        Ok("enabled" | "enabled-runtime" | "static" | "indirect" | "alias" | "generated") => {
            Check::ok(unit, "enabled")
        }
        Ok(other) if other.contains("not-found") || other.contains("No such file") => {
            Check::advice(
                unit,
                "not installed: nobody starts the daemon with the host",
                "apt install ./tidemark.deb",
            )
        }
        Ok("masked" | "masked-runtime") => Check::missing(
            unit,
            "masked: it cannot be started",
            format!("systemctl unmask {unit} && systemctl enable --now {unit}"),
        ),
        Ok(other) => Check::advice(
            unit,
            format!("{other}: it does not start with the host"),
            format!("systemctl enable --now {unit}"),
        ),
        Err(error) => Check::advice(unit, error.clone(), "systemctl status"),
    }
}

fn daemon(socket: &Path, overview: &Overview) -> Check {
    let report = match &overview.daemon {
        Daemon::Told(_) => return Check::ok("daemon", format!("{} answers", socket.display())),
        Daemon::Silent(report) => report,
    };
    let mend = match (report.exit, overview.systemd) {
        (Exit::Denied, _) => "sudo tidemark doctor, or: usermod -aG tidemark YOU",
        (_, true) => {
            "systemctl restart tidemarkd.socket tidemarkd.service; journalctl -u tidemarkd -b"
        }
        (_, false) => "tidemarkd serve",
    };
    Check::missing("daemon", report.message.clone(), mend)
}

/// Who connects is told by the kernel, and who may is told by the mode.
fn permissions(socket: &Path) -> Check {
    let name = "socket";
    let path = socket.display();
    match fs::metadata(socket) {
        Ok(found) if !found.file_type().is_socket() => Check::missing(
            name,
            format!("{path} is no socket"),
            format!("rm {path}, then start the daemon again"),
        ),
        Ok(found) if found.mode() & 0o007 != 0 => Check::missing(
            name,
            format!(
                "{path} has mode {:o}: everybody may connect",
                found.mode() & 0o777
            ),
            format!("chmod 0660 {path}"),
        ),
        Ok(found) => Check::ok(name, format!("{path} has mode {:o}", found.mode() & 0o777)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::missing(
            name,
            format!("{path} is not there"),
            "systemctl start tidemarkd.socket, or: tidemarkd serve",
        ),
        Err(error) => Check::missing(name, format!("{path}: {error}"), "sudo tidemark doctor"),
    }
}

fn group_of(group: &str) -> Check {
    match Group::from_name(group) {
        Ok(Some(_)) => Check::ok("group", format!("\"{group}\" is there")),
        Ok(None) => Check::advice(
            "group",
            format!("there is no group \"{group}\": only root may call the daemon"),
            format!("groupadd --system {group}, then restart the daemon"),
        ),
        Err(error) => Check::advice(
            "group",
            format!("\"{group}\": {error}"),
            format!("getent group {group}"),
        ),
    }
}

fn rule(folders: &[&str]) -> Check {
    let is_ours = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .ends_with("tidemark.rules")
        })
    };
    let there = folders
        .iter()
        .find(|folder| fs::read_dir(folder).is_ok_and(|mut entries| entries.any(is_ours)));
    match there {
        Some(folder) => Check::ok("udev rule", format!("in {folder}")),
        None => Check::advice(
            "udev rule",
            "not installed: with ublk, links by UUID may lead below a volume",
            "apt install ./tidemark.deb, then: udevadm control --reload",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt, net::UnixListener};

    use super::{super::check::Level, *};

    #[test]
    fn a_socket_must_be_one_and_not_for_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(permissions(&path).detail.ends_with("is not there"));
        assert!(permissions(dir.path()).detail.ends_with("is no socket"));
        let _listener = UnixListener::bind(&path).unwrap();
        for (mode, level) in [(0o660, Level::Ok), (0o666, Level::Missing)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(permissions(&path).level, level);
        }
    }

    #[test]
    fn states_of_units_are_understood() {
        for (state, level) in [
            ("enabled", Level::Ok),
            ("static", Level::Ok),
            ("disabled", Level::Advice),
            ("masked", Level::Missing),
            ("not-found", Level::Advice),
            (
                "Failed to get unit file state for x: No such file or directory",
                Level::Advice,
            ),
        ] {
            assert_eq!(enabled("x", Ok(state.to_owned())).level, level, "{state}");
        }
    }

    #[test]
    fn a_rule_is_looked_for_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        assert_eq!(rule(&["/no/such/folder", folder]).level, Level::Advice);
        fs::write(dir.path().join("56-tidemark.rules"), "").unwrap();
        assert_eq!(rule(&["/no/such/folder", folder]).level, Level::Ok);
        assert_eq!(group_of("no-such-group-here").level, Level::Advice);
    }
}
