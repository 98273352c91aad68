//! A plan as people read it.

use std::fmt;

use super::{Deed, DiskPace, Plan, Resident, Step};
use crate::sim::ops::Wish;
use crate::sim::replica::Wall;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the world of seed {}:", self.seed)?;
        for (at, resident) in self.residents.iter().enumerate() {
            writeln!(f, "  replica {at}: {resident}")?;
        }
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dials {
            Some(bridge) => write!(f, "a node that dials replica {bridge}")?,
            None => write!(f, "the bridge")?,
        }
        if !self.has_way {
            write!(f, ", and never reaches it")?;
        }
        for neighbour in &self.neighbours {
            write!(f, ", a neighbour of {neighbour}")?;
        }
        if self.old {
            write!(f, ", of an older version")?;
        }
        if self.collections != crate::session::Collections::All {
            write!(f, ", with one of two collections")?;
        }
        write!(f, ", {}", self.wall)?;
        if self.takes_time {
            write!(f, ", takes over its peer's time")?;
        }
        write!(f, ", {}", self.disk)
    }
}

impl fmt::Display for DiskPace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "a quick disk",
            Self::Stalling => "a disk that stalls",
            Self::Slow => "a slow disk",
        })
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("a clock that begins in 1970"),
            Self::Set { offset_ms, drift_ppm, quality } => {
                write!(f, "a clock that is {offset_ms} ms off")?;
                if *drift_ppm != 0 {
                    write!(f, ", drifts by {drift_ppm} ppm")?;
                }
                write!(f, " and calls itself {quality:?}")
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.at_us / 1_000_000, self.at_us / 1000 % 1000);
        write!(f, "{seconds:>8}.{millis:03} s  replica {}: ", self.replica)?;
        match &self.deed {
            Deed::Person(wish) => write!(f, "a person {wish}"),
            Deed::CutLink => write!(f, "a link is cut"),
            Deed::Flap { times } => write!(f, "its link is cut {times} times in a row"),
            Deed::BlackHole { for_us } => {
                write!(f, "its links swallow everything for {} s", for_us / 1_000_000)
            }
            Deed::Silence { for_us } => write!(f, "nobody has a link for {} s", for_us / 1_000_000),
            Deed::PowerCut => write!(f, "the power goes"),
            Deed::TakeCopy => write!(f, "a backup is made"),
            Deed::GoBack => write!(f, "the backup is restored"),
            Deed::SetClock(wall) => write!(f, "it has from now on {wall}"),
            Deed::ContentRoom(u64::MAX) => write!(f, "there is room for any content"),
            Deed::ContentRoom(bytes) => write!(f, "there is room for {bytes} bytes of content"),
            Deed::DiskFull => write!(f, "the disk is full"),
            Deed::DiskRoom => write!(f, "the disk has room again"),
            Deed::SetDiskPace(pace) => write!(f, "it has from now on {pace}"),
            Deed::Rot => write!(f, "a blob rots"),
            Deed::Scrub => write!(f, "its blobs are checked"),
            Deed::WantNow(content) => write!(f, "a reader waits for content {content}"),
            Deed::EndSession => write!(f, "a session is ended"),
            Deed::Away { for_us, others_us } => {
                let days = |us: &u64| us / 86_400_000_000;
                write!(f, "it is away for {} days, and nobody has a link for {}", days(for_us), days(others_us))
            }
            Deed::Revoke => write!(f, "it is revoked"),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("creates a record"),
            Self::Catalogue { records } => write!(f, "takes in a catalogue of {records} records"),
            Self::Edit => f.write_str("edits a record"),
            Self::Delete => f.write_str("deletes a record"),
            Self::Count => f.write_str("opens a medium"),
            Self::UnknownKind => f.write_str("makes a record of an unknown kind"),
            Self::Import(content) => write!(f, "imports content {content}"),
        }
    }
}
