//! `make chaos`: commits while things break, with real processes. N runs, each from a seed of its own: `SEED=` says which
//! comes first, and is otherwise random; with N=1 it is that run again. GUESTS=1 takes real guests instead of disks.
//!
//! Every run is on a cluster that was at rest, and leaves it so; after a violation the next has a new one, and the
//! directory of the old one is kept.

mod fault;
mod machines;
mod plan;
mod run;
mod table;
mod window;

use std::process::ExitCode;
use std::time::Instant;

use form_tests::{Assets, Cluster, Context, Form, Network, Result, Scene};

use machines::Machines;
use plan::Plan;
use table::Table;

const NODES: usize = 3;

fn main() -> ExitCode {
    match chaos() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(violations) => {
            eprintln!("✗ {violations} violations");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\n✗ {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// How many violations there were.
fn chaos() -> Result<u32> {
    let runs = number("N")?.unwrap_or(12);
    let first = number("SEED")?.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let guests = number("GUESTS")?.unwrap_or(0) != 0;
    let mut table = Table::default();
    let mut violations = 0;
    let mut stage = None;
    for seed in first..first.saturating_add(runs) {
        let plan = Plan::new(seed, NODES);
        println!("{plan:?}");
        let (mut cluster, network, mut machines) = match stage.take() {
            Some(stage) => stage,
            None => set_up(guests)?,
        };
        let began = Instant::now();
        match run::run(&plan, &mut cluster, &network, &mut machines) {
            Ok(seen) => {
                println!("    {:?}, {:.1} s", seen.outcome, began.elapsed().as_secs_f64());
                table.add(plan.kind, Some(seen), began.elapsed());
                stage = Some((cluster, network, machines));
            }
            Err(error) => {
                violations += 1;
                table.add(plan.kind, None, began.elapsed());
                let dir = cluster.keep_files()?;
                eprintln!("✗ VIOLATION, SEED={seed}: {error:?}\n    kept: {}", dir.display());
            }
        }
    }
    if let Some((cluster, network, machines)) = stage {
        drop(machines);
        cluster.shut_down()?;
        drop(network);
    }
    println!("\n{table}");
    Ok(violations)
}

fn set_up(guests: bool) -> Result<(Cluster, Network, Machines)> {
    let assets = if guests { Assets::find()? } else { Assets::without_guest()? };
    let scene = Scene::new()?;
    let network = Network::new(&scene, NODES)?;
    let plan = (0..NODES).map(|number| network.node(number)).collect::<Result<_>>()?;
    let (mnemonic, _) = Form::new(assets.form.clone(), None).new_account()?;
    let cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    let machines = Machines::create(&cluster, guests)?;
    Ok((cluster, network, machines))
}

fn number(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map(Some).context(|| format!("read {name}={text}")),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(error).context(|| format!("read {name}")),
    }
}
