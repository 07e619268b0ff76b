use form_node::{ApiError, ErrorCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, sleep};

use crate::args::{InstanceArgs, KeyArgs, NodeArgs};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;
use crate::terminal::TerminalMode;

/// Ctrl-], as telnet has it.
const LEAVE: u8 = 0x1d;

/// Connect to an instance's serial console
///
/// On a terminal every key goes to the guest, Ctrl-C too; Ctrl-] leaves. Otherwise stdin is copied to the guest and the
/// guest's output to stdout; after the end of stdin the command waits until the guest has said nothing for --drain
/// seconds, and ends. One console at a time is connected. Needs the level operator.
#[derive(clap::Args)]
pub(crate) struct ConsoleArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Silence of the guest after which a console whose input has ended is left
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    drain: u64,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn run(args: ConsoleArgs) -> Result<(), Stop> {
    let session = Session::open(args.node, &args.key).await?;
    let instance = session.instance(&args.instance).await?;
    let console = session.client.console(&session.signer, &instance).await?;
    let drain = Duration::from_secs(args.drain);
    let (stdin, stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let end = if let Some(_raw) = TerminalMode::raw() {
        // Lines end in CR LF while the terminal is raw.
        Output::new(false).note(&format!("console of {}; Ctrl-] leaves\r", instance.name));
        copy(console, stdin, stdout, drain, Some(LEAVE)).await
    } else {
        copy(console, stdin, stdout, drain, None).await
    };
    match end {
        Ok(End::Ours) => Ok(()),
        Ok(End::Guests) => {
            Output::new(false).note("the console was closed at the node");
            Ok(())
        }
        Err(error) => {
            Err(ApiError::new(ErrorCode::Unavailable, "the connection to the console broke").cause(error).into())
        }
    }
}

/// Who ended it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Ours,
    Guests,
}

/// Copies both ways. Ends on `leave` in the input, on the end of the console, or `drain` after the last output once the
/// input has ended.
async fn copy(
    console: impl AsyncRead + AsyncWrite,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    drain: Duration,
    leave: Option<u8>,
) -> std::io::Result<End> {
    let (from_guest, mut to_guest) = tokio::io::split(console);
    let mut from_guest = std::pin::pin!(from_guest);
    let (mut typed, mut said) = (vec![0; 4096], vec![0; 16384]);
    let mut input_open = true;
    loop {
        tokio::select! {
            count = from_guest.read(&mut said) => {
                let said = said.get(..count?).unwrap_or_default();
                if said.is_empty() {
                    return Ok(End::Guests);
                }
                output.write_all(said).await?;
                output.flush().await?;
            }
            count = input.read(&mut typed), if input_open => {
                let typed = typed.get(..count?).unwrap_or_default();
                let end = leave.and_then(|leave| typed.iter().position(|byte| *byte == leave));
                to_guest.write_all(typed.get(..end.unwrap_or(typed.len())).unwrap_or_default()).await?;
                to_guest.flush().await?;
                if end.is_some() {
                    return Ok(End::Ours);
                }
                input_open = !typed.is_empty();
            }
            // Made anew in each round: it counts from the last output.
            () = sleep(drain), if !input_open => return Ok(End::Ours),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    #[tokio::test]
    async fn the_leave_key_ends_it_and_is_not_sent() {
        let (console, mut guest) = tokio::io::duplex(64);
        let end = copy(console, &b"ls\n\x1dmore"[..], vec![], NO_WAIT, Some(LEAVE)).await.unwrap();
        assert_eq!(end, End::Ours);
        let mut got = String::new();
        guest.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "ls\n");
    }

    #[tokio::test]
    async fn piped_input_is_sent_and_output_drained() {
        let (console, mut guest) = tokio::io::duplex(64);
        let guest = tokio::spawn(async move {
            let mut got = [0; 4];
            guest.read_exact(&mut got).await.unwrap();
            guest.write_all(b"hello").await.unwrap();
            got
        });
        let mut output = vec![];
        // The guest closes after its answer, so this does not hang on the drain.
        let end = copy(console, &b"\x1dls\n"[..], &mut output, Duration::from_secs(60), None).await.unwrap();
        assert_eq!((end, output.as_slice()), (End::Guests, &b"hello"[..]));
        assert_eq!(&guest.await.unwrap(), b"\x1dls\n", "without a terminal no byte is special");
    }
}
