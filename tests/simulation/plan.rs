//! What one simulated world is asked to be: all of it, so that a failure can be run again.

use std::fmt;

use tidemark_agent::volume::Step;

/// A kind of trouble that a world may have. Each can be left out, to see which one a failure needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process dies at an await point.
    Death,
    /// The host loses power, at any write or between.
    PowerCut,
    /// Disks take their time.
    Latency,
    /// A write reaches the medium in pieces.
    Pieces,
    /// Single calls of the origin fail.
    OriginError,
    /// The origin fails for a while.
    OriginDown,
    /// Single calls of the area fail.
    AreaError,
    /// The area fails for a while.
    AreaDown,
    /// The area answers nothing for a long time.
    AreaStall,
    /// A byte of the area rots.
    Rot,
    /// The wall clock jumps forward.
    ClockForward,
    /// The wall clock jumps back.
    ClockBack,
    /// Somebody else writes to the origin while the process is dead.
    OtherHands,
    /// Whoever holds a volume for a cut dies.
    LostHold,
    /// The store is small and fills.
    SmallStore,
    /// A task is polled though nothing woke it.
    Spurious,
}

impl Fault {
    /// Every kind, in the order in which the shrinker drops them.
    pub const ALL: [Self; 16] = [
        Self::Spurious,
        Self::SmallStore,
        Self::LostHold,
        Self::OtherHands,
        Self::ClockBack,
        Self::ClockForward,
        Self::Rot,
        Self::AreaStall,
        Self::AreaDown,
        Self::AreaError,
        Self::OriginDown,
        Self::OriginError,
        Self::Pieces,
        Self::Latency,
        Self::PowerCut,
        Self::Death,
    ];

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The kind that [`fmt::Debug`] writes so.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|fault| format!("{fault:?}") == name)
    }
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u32);

impl Faults {
    /// With one kind more.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Self(self.0 | fault.bit())
    }

    /// Whether it has the kind.
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn all(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.all().map(|fault| format!("{fault:?}")).collect();
        f.write_str(&names.join(","))
    }
}

/// One world: the same plan gives the same steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Where the world ends at the latest, in polls of a task; its last checks follow.
    pub steps: u64,
    /// Kinds of trouble that are kept out. What they would have hit is otherwise the same.
    pub without: Faults,
    /// A step that the engine leaves out.
    pub defect: Option<Step>,
    /// Print every step.
    pub trace: bool,
}

impl Plan {
    /// A whole world of this seed, with all its trouble.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: u64::MAX,
            without: Faults::default(),
            defect: None,
            trace: false,
        }
    }

    /// The command that runs exactly this.
    pub fn command(&self) -> String {
        let mut words = format!("target/debug/simulate --replay {}", self.seed);
        if self.steps != u64::MAX {
            words += &format!(" --steps {}", self.steps);
        }
        if !self.without.is_empty() {
            words += &format!(" --without {:?}", self.without);
        }
        if let Some(defect) = self.defect {
            words += &format!(" --defect {defect:?}");
        }
        words
    }
}

/// What a world was found to violate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invariant {
    /// No change reaches the origin before it is marked.
    MarkFirst,
    /// No block that a snapshot needs is overwritten before its old data is kept.
    PreserveFirst,
    /// A view gives the bytes of its moment, or a typed error that has its reason.
    ExactViews,
    /// At a cut no change is in flight, and a group is never torn.
    CleanCut,
    /// An answered flush or FUA write is on the origin's medium.
    NoCacheOfOurs,
    /// A diff has every block that differs, or the lineage is a new one that says why.
    Superset,
    /// The host gets the origin's own answer, and in time.
    TheVolumeFirst,
    /// Everything has its bound.
    Bounded,
    /// Somebody waits for what nobody will do.
    Progress,
    /// The engine panicked.
    NoPanic,
}

impl Invariant {
    /// Its number in ARCHITECTURE.md; what has none needs none.
    pub const fn number(self) -> &'static str {
        match self {
            Self::MarkFirst => "I1",
            Self::PreserveFirst => "I2",
            Self::ExactViews => "I3",
            Self::CleanCut => "I4",
            Self::NoCacheOfOurs => "I5",
            Self::Superset => "I6",
            Self::TheVolumeFirst => "I7",
            Self::Bounded => "I8",
            Self::Progress | Self::NoPanic => "",
        }
    }
}

/// A world in which an invariant did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What to run to see it again.
    pub plan: Plan,
    /// At which step.
    pub step: u64,
    /// What was violated.
    pub invariant: Invariant,
    /// How.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {:?} does not hold: {}",
            self.invariant.number(),
            self.invariant,
            self.message
        )?;
        writeln!(f, "seed {}, step {}", self.plan.seed, self.step)?;
        write!(f, "run it again: {}", self.plan.command())
    }
}

impl std::error::Error for Failure {}
