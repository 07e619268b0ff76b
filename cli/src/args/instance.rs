//! Which instance.

/// One of `--id` and `--name`; clap sees to it.
#[derive(clap::Args)]
#[group(id = "instance", required = true, multiple = false)]
pub(crate) struct InstanceArgs {
    /// Id of the instance: 40 hex digits, with or without 0x
    #[arg(short, long, value_parser = parse_id)]
    pub(crate) id: Option<String>,
    /// Name of the instance
    #[arg(short, long)]
    pub(crate) name: Option<String>,
}

impl InstanceArgs {
    /// What a node is asked for.
    pub(crate) fn id_or_name(&self) -> &str {
        self.id.as_deref().or(self.name.as_deref()).unwrap_or_default()
    }
}

/// The canonical form of an id: lowercase, no 0x.
fn parse_id(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits.to_ascii_lowercase())
    } else {
        Err("an id is 40 hex digits, with or without 0x; for a name use --name".into())
    }
}
