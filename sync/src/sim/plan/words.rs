//! A plan as people read it.

use std::fmt;

use super::{Carried, Damage, Deed, DiskPace, Plan, Resident, Step};
use crate::sim::metered::LinkPlan;
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
        if let Some(original) = self.copy_of {
            write!(f, ", is a copy of replica {original}")?;
        }
        if !self.has_way {
            write!(f, ", and never reaches it")?;
        }
        if self.by_carrier {
            write!(f, " but by sticks")?;
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
        write!(f, ", {}", self.disk)?;
        self.link.as_ref().map_or(Ok(()), |link| write!(f, ", {link}"))
    }
}

impl fmt::Display for LinkPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with a link that carries {} bytes a day", self.bytes_a_day)?;
        if let Some(bytes) = self.bytes_a_month {
            write!(f, " and {bytes} a month")?;
        }
        write!(f, ", {} % of it for records, from minute {} on", self.reserve_percent, self.midnight_minute)?;
        self.open_minutes.map_or(Ok(()), |minutes| write!(f, " for {minutes} minutes"))
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
            Deed::PutBack => write!(f, "its card is written with an image of the time of the backup"),
            Deed::StartCopy => write!(f, "a copy of the card is started"),
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
            Deed::Carry(carried) => {
                let Carried { to, for_us, back_us, damage, .. } = carried;
                write!(f, "a bundle is carried to replica {to} for {} s", for_us / 1_000_000)?;
                match damage {
                    Damage::None => {}
                    Damage::Cut => write!(f, ", and is cut off")?,
                    Damage::Changed => write!(f, ", and is damaged")?,
                    Damage::PowerCut => write!(f, ", where the power goes")?,
                }
                if back_us.is_none() { write!(f, "; no receipt comes back") } else { Ok(()) }
            }
            Deed::WantRoom(bytes) => write!(f, "no more than {bytes} bytes are to be used for content"),
            Deed::Choose { keeps: true } => write!(f, "it keeps both collections again"),
            Deed::Choose { keeps: false } => write!(f, "it keeps one of two collections no longer"),
            Deed::Sweep => write!(f, "content that nothing names is looked for"),
            Deed::Erase(number) => write!(f, "secret {number} is to be forgotten"),
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
            Self::Secret { number, version } => write!(f, "writes version {version} of secret {number}"),
            Self::Note(number) => write!(f, "looks at secret {number}"),
            Self::Import(content) => write!(f, "imports content {content}"),
        }
    }
}
