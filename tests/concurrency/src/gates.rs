//! The gate, and copies of it with a mistake in each (build.rs has the list).

use std::future::Future;

use tidemark_store::units::BlockRange;

/// What a model uses of a gate.
pub(crate) trait AnyGate: Send + Sync + 'static {
    fn new() -> Self;
    /// A change in flight until it is dropped.
    fn enter(&self, blocks: BlockRange) -> impl Future<Output = impl Sized>;
    /// Whether it is closed.
    fn close(&self, time_is_up: impl Future<Output = ()>) -> impl Future<Output = bool>;
    fn open(&self);
}

macro_rules! gates {
    ($($module:ident $name:ident $file:literal,)*) => {$(
        mod $module {
            #![allow(unused, clippy::nonminimal_bool, reason = "a mistake leaves something out")]
            include!(concat!(env!("OUT_DIR"), "/", $file));
        }

        pub(crate) struct $name($module::Gate);

        impl AnyGate for $name {
            fn new() -> Self {
                Self($module::Gate::new())
            }

            fn enter(&self, blocks: BlockRange) -> impl Future<Output = impl Sized> {
                self.0.enter(blocks)
            }

            async fn close(&self, time_is_up: impl Future<Output = ()>) -> bool {
                self.0.close(time_is_up).await.is_ok()
            }

            fn open(&self) {
                self.0.open();
            }
        }
    )*};
}

gates! {
    real Real "gate_real.rs",
    overtaking Overtaking "gate_overtaking.rs",
    never_closed NeverClosed "gate_never_closed.rs",
    no_second_look NoSecondLook "gate_no_second_look.rs",
    closed_in_a_hurry ClosedInAHurry "gate_closed_in_a_hurry.rs",
    closer_forgotten CloserForgotten "gate_closer_forgotten.rs",
    opened_in_silence OpenedInSilence "gate_opened_in_silence.rs",
}
