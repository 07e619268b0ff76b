use std::path::PathBuf;

use form_node::{ApiError, ErrorCode};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::log;
use crate::exit::Stop;
use crate::lost_image::LostImage;
use crate::output::Output;

/// Run a node until Ctrl-C or SIGTERM
///
/// Its VMs go on running when it ends, and are adopted when it runs again. The log goes to stderr, in colour on a
/// terminal; FORM_LOG chooses what is in it, for example FORM_LOG=debug or FORM_LOG=info,form_transport=trace (default:
/// info). There, form_node::engine::source is what the log calls node::source.
#[derive(clap::Args)]
pub(crate) struct RunArgs {
    /// The data directory that `form node init` made
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) async fn run(args: RunArgs, output: Output) -> Result<(), Stop> {
    let filter = match std::env::var("FORM_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("FORM_LOG is \"{text}\", which is no log filter"))
                .cause(error)
                .remedy("set it to error, warn, info, debug or trace, or to a list of module=level")
        })?,
        _ => EnvFilter::new("info"),
    };
    log::begin(filter);
    let mut signals = Signals::listen()?;
    let mut lost = LostImage::listen()?;
    let (end, ended) = oneshot::channel();
    let node = form_node::run(&args.data, super::keeper::command(), async move {
        // An error means that the sender is gone, and with it this command.
        let _ = ended.await;
    });
    let twice = async {
        signals.next().await;
        output.note(
            "ending: commits under way are finished or undone first, for 20 s at most; a second signal ends at once",
        );
        output.note("its VMs go on running: the next `form node run` adopts them; `form manage stop` is what ends one");
        let _ = end.send(());
        signals.next().await;
    };
    tokio::select! {
        result = node => Ok(result?),
        () = twice => Err(Stop::Interrupted),
        () = lost.heard() => Err(ApiError::new(ErrorCode::Unavailable, "an image in the data directory can't be read to its end: the node ends")
            .cause("its disk fails, or somebody cut it short")
            .remedy("the kernel's log names the disk (dmesg); the VMs go on running, and the next `form node run` adopts them")
            .into()),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, ApiError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| ApiError::new(ErrorCode::Internal, "signals can't be listened for").cause(error))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
