//! Programs around a freeze: what `before-freeze` brought to rest, `after-thaw` wakes again.
//!
//! ```text
//! for each volume: note that it is owed, before-freeze     a failure ends it: wake, no snapshot
//! freeze, cut, thaw                                        no hook runs here
//! for each that is owed, the last first: after-thaw, note that it is paid
//! ```
//!
//! The note is a file, so that a control plane that dies between the two is made good by its successor.
//! No lock of the manager's is held meanwhile but those of the volumes.

use std::{fs, io, sync::Arc};

use tidemark_config::FreezeHooks;
use tidemark_proto::v1::{EventKind, FreezeMode, Severity};

use super::{CreateArgs, Error, ErrorReason, Happening, Manager};
use crate::host::hook::{Hook, HookEnded};

/// Volumes whose `after-thaw` has to run, in the order of their `before-freeze`.
#[derive(Default)]
pub(super) struct Owed(Vec<(String, FreezeHooks)>);

impl Manager {
    /// Brings the applications of volumes to rest. Fails with HOOK_FAILED when one must and does not;
    /// those before it are awake again then.
    pub(super) async fn before_freeze(
        &self,
        args: &CreateArgs,
        volumes: impl Iterator<Item = &str>,
    ) -> Result<Owed, Error> {
        let mut owed = Owed::default();
        if args.freeze == FreezeMode::None {
            return Ok(owed);
        }
        for name in volumes {
            let Some(hooks) = self.configured(name).map(|volume| volume.hooks) else {
                continue;
            };
            if !hooks.after_thaw.is_empty() {
                self.note_owed(name, true).await;
            }
            owed.0.push((name.to_owned(), hooks.clone()));
            let words = &hooks.before_freeze;
            let ended = self
                .hook("before-freeze", name, args, words, &hooks, "")
                .await;
            let Some(why) = ended else { continue };
            if hooks.required {
                self.after_thaw(args, owed, "failed").await;
                let why = format!(
                    "{why}; no snapshot was made. Mend the hook, or set required = false in \
                     [volume.{name}.hooks]"
                );
                return Err(Error::new(ErrorReason::HookFailed, why).on_volume(name));
            }
        }
        Ok(owed)
    }

    /// Wakes them, whatever became of the freeze.
    pub(super) async fn after_thaw(&self, args: &CreateArgs, owed: Owed, outcome: &str) {
        for (name, hooks) in owed.0.iter().rev() {
            let words = &hooks.after_thaw;
            self.hook("after-thaw", name, args, words, hooks, outcome)
                .await;
            if !words.is_empty() {
                self.note_owed(name, false).await;
            }
        }
    }

    /// Wakes what a control plane left at rest that died meanwhile.
    pub async fn wake_left_behind(self: &Arc<Self>) {
        let args = CreateArgs {
            freeze: FreezeMode::Auto,
            ..CreateArgs::default()
        };
        for entry in self.registry.all() {
            let name = entry.name();
            // Not between the hooks of a snapshot that has begun meanwhile.
            let Ok((_entry, _work)) = self.claim(name).await else {
                continue;
            };
            if !self.config.paths.volume(name).at_rest().exists() {
                continue;
            }
            match self.configured(name).map(|volume| volume.hooks) {
                Some(hooks) if !hooks.after_thaw.is_empty() => {
                    let what = "its applications were left at rest: waking them";
                    tracing::warn!(volume = name, "{what}");
                    let owed = Owed(vec![(name.to_owned(), hooks)]);
                    self.after_thaw(&args, owed, "failed").await;
                }
                _ => {
                    let what =
                        "its applications were left at rest, and no hook is there to wake them";
                    tracing::warn!(volume = name, "{what}");
                    self.note_owed(name, false).await;
                }
            }
        }
    }

    async fn note_owed(&self, name: &str, owed: bool) {
        let note = self.config.paths.volume(name).at_rest();
        let noted = match owed {
            true => fs::write(&note, b""),
            false => fs::remove_file(&note),
        };
        match noted {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(volume = name, note = %note.display(), %error, "a hook's note");
            }
            _ => {}
        }
    }

    /// Runs one; gives why it failed.
    async fn hook(
        &self,
        key: &str,
        volume: &str,
        args: &CreateArgs,
        words: &[String],
        hooks: &FreezeHooks,
        outcome: &str,
    ) -> Option<String> {
        if words.is_empty() {
            return None;
        }
        let told = [
            ("TIDEMARK_HOOK", key),
            ("TIDEMARK_VOLUME", volume),
            ("TIDEMARK_VOLUMES", &args.volumes.join(" ")),
            ("TIDEMARK_GROUP", &args.group),
            ("TIDEMARK_OUTCOME", outcome),
        ];
        let told = told.iter().filter(|(_, value)| !value.is_empty());
        let hook = Hook {
            words: words.to_vec(),
            environment: told
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            within: hooks.timeout,
        };
        let HookEnded { failure, output } = self.config.host.hook(hook).await;
        for line in output.lines() {
            tracing::info!(volume, hook = key, "{line}");
        }
        let why = format!("hook {key} of volume \"{volume}\": {}", failure?);
        let severity = match hooks.required || key == "after-thaw" {
            true => Severity::Error,
            false => Severity::Warning,
        };
        let happening = Happening::new(EventKind::HookFailed, severity, why.clone());
        self.events.record(happening.on_volume(volume)).await;
        Some(why)
    }
}
