use form_node::api::types::InstanceView;

use crate::args::NodeArgs;
use crate::client::Client;
use crate::exit::Stop;
use crate::output::Output;
use crate::table::Table;
use crate::units::short;

/// List the instances of the installation
#[derive(clap::Args)]
pub(crate) struct InstancesArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) async fn run(args: InstancesArgs, output: Output) -> Result<(), Stop> {
    let instances: Vec<InstanceView> = Client::new(args.node.node).get("/api/v1/instances").await?;
    output.result(&instances, || {
        if instances.is_empty() {
            "no instances yet: make one with form manage create".into()
        } else {
            table(&instances)
        }
    });
    Ok(())
}

/// One row an instance; commits and nodes by the first digits of their ids, which is how people compare them.
pub(super) fn table(instances: &[InstanceView]) -> String {
    let mut table = Table::new(["name", "status", "commit", "cluster", "node", "id"]);
    for instance in instances {
        table.row([
            instance.name.clone(),
            instance.status.clone(),
            instance.snapshot_id.as_deref().map_or("-", short).to_owned(),
            short(&instance.cluster_id).to_owned(),
            format!("{}{}", short(&instance.node_id), if instance.local { " (this one)" } else { "" }),
            instance.instance_id.clone(),
        ]);
    }
    table.to_string()
}
