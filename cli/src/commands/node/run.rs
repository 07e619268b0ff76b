use std::path::PathBuf;

use form_node::{ApiError, ErrorCode};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::exit::Stop;
use crate::output::Output;

/// Run a node until Ctrl-C or SIGTERM
///
/// Its guests live on when it ends, and are adopted when it runs again. The log goes to stderr; FORM_LOG chooses what
/// is in it, for example FORM_LOG=debug or FORM_LOG=info,form_transport=trace (default: info).
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// The data directory that `form node init` made
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) async fn run(args: RunArgs, _output: Output) -> Result<(), Stop> {
    let filter = match std::env::var("FORM_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("FORM_LOG is \"{text}\", which is no log filter"))
                .cause(error)
                .remedy("set it to error, warn, info, debug or trace, or to a list of module=level")
        })?,
        _ => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let listen = |kind| {
        signal(kind).map_err(|error| ApiError::new(ErrorCode::Internal, "signals can't be listened for").cause(error))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    form_node::run(&args.data, shutdown).await?;
    Ok(())
}
