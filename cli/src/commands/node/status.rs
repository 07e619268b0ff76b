use crate::args::NodeArgs;
use crate::client::Client;
use crate::exit::Stop;
use crate::output::Output;
use crate::units::bytes;

/// Show what a node is and can do
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) async fn run(args: StatusArgs, output: Output) -> Result<(), Stop> {
    let view = Client::new(args.node.node).node_view().await?;
    output.result(&view, || {
        let vmm = match (&view.vmm, &view.vmm_error) {
            (Some(vmm), _) => {
                format!("{} {}, {}, {}, CPU {}", vmm.vmm, vmm.version, vmm.machine_type, vmm.accelerator, vmm.cpu_model)
            }
            (None, Some(error)) => format!("none: {error}"),
            (None, None) => "none".into(),
        };
        format!(
            "node          {}\nversion       {}\ninstallation  {}\nstore         {}\nAPI           {}\ntransport     {}\n\
             VMM           {vmm}\nengine        {}\ninstances     {}\nfree space    {}",
            view.node_id,
            view.version,
            view.installation_id,
            view.store,
            view.api,
            view.quic,
            view.engine,
            view.instances,
            bytes(view.data_free_bytes),
        )
    });
    Ok(())
}
