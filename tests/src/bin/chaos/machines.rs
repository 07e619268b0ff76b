//! What is committed: disks without a process, or real guests.

use form_tests::{Cluster, Context, Disks, Error, Guest, Marks, Result};

/// Where a guest's counter starts: nothing else in it counts there.
const COUNTER_START: u64 = 400_000_000;
/// More than it can count in a run.
const COUNTER_MOST: u64 = 1_000_000;

/// One on each node.
pub(crate) enum Machines {
    Disks(Disks),
    Guests(Vec<Guest>),
}

/// By what one of them is told from every other.
pub(crate) enum Image {
    /// All bytes.
    Disk(Vec<u8>),
    /// Which boot, and what was put into it.
    Guest(String, Marks),
}

impl Machines {
    pub(crate) fn create(cluster: &Cluster, guests: bool) -> Result<Self> {
        match guests {
            true => cluster.boot_all("d", cluster.nodes()).map(Self::Guests),
            false => Disks::create(cluster).map(Self::Disks),
        }
    }

    /// Processes that run for them.
    pub(crate) fn vms(&self) -> usize {
        match self {
            Self::Disks(_) => 0,
            Self::Guests(guests) => guests.len(),
        }
    }

    /// Makes it another than all others.
    pub(crate) fn change(&mut self, cluster: &Cluster, number: usize, seed: u64) -> Result<()> {
        match self {
            Self::Disks(disks) => disks.change(cluster, number, seed.wrapping_mul(16).wrapping_add(number as u64 + 1)),
            Self::Guests(guests) => {
                guests[number - 1].attach()?;
                Marks::make(&mut guests[number - 1], &format!("run {seed}, node {number}"), COUNTER_START).map(drop)
            }
        }
    }

    /// What it is now. It must run.
    pub(crate) fn image(&mut self, cluster: &Cluster, number: usize) -> Result<Image> {
        match self {
            Self::Disks(disks) => {
                disks.runs(cluster, number)?;
                disks.read(cluster, number).map(Image::Disk)
            }
            Self::Guests(guests) => {
                let guest = &mut guests[number - 1];
                guest.attach()?;
                Marks::counts_on(guest)?;
                Ok(Image::Guest(guest.boot_id()?, Marks::read(guest)?))
            }
        }
    }

    /// All of them.
    pub(crate) fn images(&mut self, cluster: &Cluster) -> Result<Vec<Image>> {
        (1..=cluster.nodes()).map(|number| self.image(cluster, number)).collect()
    }
}

impl Image {
    /// Whether `self` is what `before` was, or has become since.
    pub(crate) fn comes_from(&self, before: &Image) -> Result<()> {
        match (self, before) {
            (Self::Disk(now), Self::Disk(then)) if now == then => Ok(()),
            (Self::Disk(now), Self::Disk(then)) => {
                let differ = now.chunks(4096).zip(then.chunks(4096)).filter(|(a, b)| a != b).count();
                Err(Error::new(format!("{differ} blocks of its disk are others")))
            }
            (Self::Guest(boot, now), Self::Guest(boot_then, then)) if boot == boot_then => {
                now.continue_from(then, COUNTER_MOST)
            }
            _ => Err(Error::new("it is another boot")),
        }
    }
}

/// Each comes from the one of `before` that `which` names for its number.
pub(crate) fn all_come_from(now: &[Image], before: &[Image], which: impl Fn(usize) -> usize) -> Result<()> {
    for (image, number) in now.iter().zip(1..) {
        let from = which(number);
        image
            .comes_from(&before[from - 1])
            .context(|| format!("the instance on node {number} is not that of {from}"))?;
    }
    Ok(())
}
