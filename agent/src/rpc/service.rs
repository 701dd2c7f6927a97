//! What systemd is told of the control plane; nothing where it did not start it.

use sd_notify::NotifyState;

/// It serves. From now on systemd hears of it as often as its watchdog wants, for as long as the runtime
/// runs its tasks: where that hangs, the control plane is started again.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
    let Some(within) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        loop {
            tell(&[NotifyState::Watchdog]);
            tokio::time::sleep(within / 3).await;
        }
    });
}

/// It is about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
