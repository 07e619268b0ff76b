//! A fault comes, lasts, and is mended.

use std::thread::sleep;

use form_tests::{Cluster, Commit, Network, Result, Trouble};

use crate::plan::{Kind, Plan};

/// Does it; returns when it is mended. `second` begins another commit.
pub(crate) fn strike(
    plan: &Plan,
    cluster: &mut Cluster,
    network: &Network,
    commit: &mut Commit,
    second: impl FnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    match plan.kind {
        Kind::KillSource | Kind::KillTarget | Kind::KillTwo | Kind::KillTwice => {
            kill(plan, cluster);
            sleep(plan.lasts);
            if plan.kind == Kind::KillTwice {
                begin(plan, cluster)?;
                sleep(plan.lasts / 2);
                kill(plan, cluster);
            }
            begin(plan, cluster)?;
        }
        Kind::FreezeSource | Kind::FreezeTarget => {
            for victim in &plan.victims {
                cluster.node(*victim).freeze()?;
            }
            sleep(plan.lasts);
            for victim in &plan.victims {
                cluster.node(*victim).thaw()?;
            }
        }
        Kind::KillCli => commit.kill(),
        Kind::SecondCommit => second(cluster)?,
        Kind::CutSource | Kind::CutTarget => trouble(plan, network, Trouble::Cut)?,
        Kind::Loss => trouble(plan, network, Trouble::Loss(33))?,
        Kind::Slow => trouble(plan, network, Trouble::Slow(400))?,
    }
    // Whatever was hit is up again.
    for number in 1..=cluster.nodes() {
        cluster.node(number).start()?;
    }
    Ok(())
}

fn kill(plan: &Plan, cluster: &mut Cluster) {
    for victim in &plan.victims {
        cluster.node(*victim).kill();
    }
}

fn begin(plan: &Plan, cluster: &mut Cluster) -> Result<()> {
    plan.victims.iter().try_for_each(|victim| cluster.node(*victim).begin())
}

fn trouble(plan: &Plan, network: &Network, trouble: Trouble) -> Result<()> {
    for victim in &plan.victims {
        network.trouble(victim - 1, trouble)?;
    }
    sleep(plan.lasts);
    network.heal()
}
