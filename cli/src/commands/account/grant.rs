use form_node::ApiError;
use form_node::auth::{Address, Level};
use hyper::Method;
use serde_json::{Value, json};

use crate::args::{KeyArgs, NodeArgs, parse};
use crate::client::{Patience, Subject};
use crate::clock;
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;

/// Let an address do something with an instance and all of its cluster
///
/// Only the owner may. A later grant for the same address replaces this one.
#[derive(clap::Args)]
pub(crate) struct GrantArgs {
    /// Name or id of the instance
    #[arg(long, value_name = "NAME|ID")]
    instance: String,
    /// Who: 40 hex digits, with or without 0x
    #[arg(long, value_parser = parse::<Address>)]
    address: Address,
    /// What: read-only, operator (console, start, stop), manager (also create
    /// --like, commit); each includes those before it
    #[arg(long, value_parser = parse::<Level>)]
    level: Level,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn run(args: GrantArgs, output: Output) -> Result<(), Stop> {
    let GrantArgs { instance, address, level, node, key } = args;
    let session = Session::open(node, &key).await?;
    let name = change(&session, Method::POST, &instance, address, Some(level)).await?;
    output.result(&json!({ "instance": name, "address": address, "level": level }), || {
        format!("{address} is {level} on {name}")
    });
    Ok(())
}

/// Sends a grant or, without a level, takes it back; gives the instance's name. Versions are times: the newest counts.
pub(super) async fn change(
    session: &Session,
    method: Method,
    instance: &str,
    address: Address,
    level: Option<Level>,
) -> Result<String, ApiError> {
    let instance = session.client.instance(instance).await?;
    let mut body = json!({ "address": address, "instance_id": instance.instance_id, "version": clock::now_ms() });
    if let Some(level) = level {
        body["level"] = json!(level);
    }
    let _: Value = session
        .client
        .signed(
            &session.signer,
            (method, "/api/v1/accounts/grants"),
            Subject::from(&instance),
            Some(&body),
            Patience::Answer,
        )
        .await?;
    Ok(instance.name)
}
