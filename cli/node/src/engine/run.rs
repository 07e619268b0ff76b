//! Making a node, and running it.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use form_transport::{NodeKey, Transport};
use form_vmm_hooks::keeper::{KeeperCommand, Keeping};
use form_vmm_hooks::{Accel, Files, FilesConfig, Qemu, QemuConfig, Vmm};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::build::chain;
use super::core_impl::Engine;
use super::db::NodeDb;
use super::layout::{Layout, make_dir};
use super::limits::SHUTDOWN_GRACE;
use super::node::{Node, Parts};
use super::serve::Peers;
use super::vms::Vmms;
use super::{driver, ending, lifecycle, recover, standby};
use crate::config::NodeConfig;
use crate::core::Core;
use crate::error::{ApiError, ErrorCode};
use crate::store::{NodeRecord, Store};

/// What `form node init` is told.
#[derive(Clone, Debug)]
pub struct InitOptions {
    /// A new or empty directory.
    pub data_dir: PathBuf,
    /// As in `sqlite:/var/lib/form/state.db`; outside the data directory.
    pub store: String,
    /// Where the HTTP API will listen.
    pub api: SocketAddr,
    /// Where other nodes will reach it (UDP).
    pub quic: SocketAddr,
    /// The QEMU binary, when it is not in PATH.
    pub qemu: Option<PathBuf>,
}

/// A node that was made.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// Its public key, 64 hex.
    pub node_id: String,
    /// The installation it was enrolled in.
    pub installation_id: String,
}

/// Makes a node: its directory, its key, its settings, and its place among the installation's nodes.
///
/// # Errors
/// The directory is in use, or the store can't be opened; then nothing was made.
pub async fn init(options: &InitOptions) -> Result<Initialised, ApiError> {
    let layout = Layout::new(&options.data_dir);
    let used = std::fs::read_dir(layout.root()).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        return Err(ApiError::new(ErrorCode::WrongState, format!("{} is not empty", layout.root().display()))
            .remedy("give a new directory; a node that is there already is started with `form node run`"));
    }
    let store = Store::open(&options.store).await?;
    make_dir(layout.root())
        .and_then(|()| make_dir(&layout.commands()))
        .and_then(|()| std::fs::set_permissions(layout.root(), std::fs::Permissions::from_mode(0o700)))
        .map_err(|e| ApiError::io("make", layout.root(), &e))?;
    let key = NodeKey::generate().map_err(|e| ApiError::internal("make the node's key", chain(&e)))?;
    key.save(&layout.key()).map_err(|e| ApiError::internal("keep the node's key", chain(&e)))?;
    let config = NodeConfig {
        store: options.store.clone(),
        installation_id: store.installation_id().to_owned(),
        api: options.api,
        quic: options.quic,
        qemu: options.qemu.clone(),
    };
    store.put_node(&record(&key, &config)).await?;
    config.save(&layout.config())?;
    Ok(Initialised { node_id: key.id().to_string(), installation_id: config.installation_id })
}

fn record(key: &NodeKey, config: &NodeConfig) -> NodeRecord {
    NodeRecord {
        node_id: key.id().to_string(),
        api_addr: config.api.to_string(),
        quic_addr: config.quic.to_string(),
        enrolled_at: lifecycle::unix_ms(),
        other: Default::default(),
    }
}

/// Forgets a node in the installation's state store: the others refuse its key from then on.
///
/// # Errors
/// There is no such store or node, or it has instances.
pub async fn remove(store: &str, node_id: &str) -> Result<(), ApiError> {
    // Opening would make it.
    if let Some(path) = store.strip_prefix("sqlite:").map(Path::new).filter(|path| !path.exists()) {
        return Err(ApiError::new(ErrorCode::NotFound, format!("there is no state store {}", path.display()))
            .remedy("give the URL that stands in node.toml of the nodes that are left"));
    }
    let store = Store::open(store).await?;
    if store.node(node_id).await?.is_none() {
        return Err(ApiError::new(ErrorCode::NotFound, format!("node {node_id} is not enrolled"))
            .remedy("`form node status` shows a node's id"));
    }
    let hosted: Vec<_> =
        store.instances().await?.into_iter().filter(|i| i.node_id == node_id).map(|i| i.name).collect();
    if !hosted.is_empty() {
        return Err(ApiError::new(
            ErrorCode::WrongState,
            format!("node {node_id} has instances: {}", hosted.join(", ")),
        )
        .remedy("stop and delete them first: form manage stop, form manage delete"));
    }
    Ok(store.remove_node(node_id).await?)
}

/// Runs a node until `shutdown` is done. Its VMs go on without it. `keeper` starts a process that calls [`keep`](crate::keep).
///
/// # Errors
/// The directory is not a node's or is in use, an address is taken, or the store is another installation's.
pub async fn run(
    data_dir: &Path,
    keeper: KeeperCommand,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    let layout = Layout::new(data_dir);
    let config = NodeConfig::load(&layout.config())?;
    let store = Store::open(&config.store).await?;
    let binary = config.qemu.unwrap_or_else(|| "qemu-system-x86_64".into());
    let keeping = Keeping { command: Some(keeper), ..Keeping::default() };
    let (keeping_qemu, programs) = (keeping.clone(), layout.commands());
    let vmm = Arc::new(Qemu::new(QemuConfig { binary, accel: Accel::Auto, keeping: keeping_qemu, programs }));
    run_with(data_dir, store, vmm, keeping, shutdown).await
}

/// As [`run`], on a state store and in place of QEMU a monitor of the caller's. There are no keepers: a machine of files
/// that commands pause is not captured.
///
/// # Errors
/// As those of [`run`].
pub async fn run_on(
    data_dir: &Path,
    store: Store,
    vmm: Arc<dyn Vmm>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    run_with(data_dir, store, vmm, Keeping::default(), shutdown).await
}

async fn run_with(
    data_dir: &Path,
    store: Store,
    vmm: Arc<dyn Vmm>,
    keeping: Keeping,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ApiError> {
    let layout = Layout::new(data_dir);
    let config = NodeConfig::load(&layout.config())?;
    let _lock = lock(&layout)?;
    let key = NodeKey::load(&layout.key()).map_err(|e| ApiError::internal("read the node's key", chain(&e)))?;
    if store.installation_id() != config.installation_id {
        return Err(ApiError::new(ErrorCode::WrongState, format!("{} is another installation's store", config.store))
            .cause(format!("it is {}, this node is of {}", store.installation_id(), config.installation_id))
            .remedy("give the node its own store back, or make it anew"));
    }
    // Asked for first: a node whose address is taken has not touched anything yet.
    let listener = tokio::net::TcpListener::bind(config.api).await.map_err(|e| taken("API", config.api, &e))?;

    let (engine, why) = form_delta::Engine::probe();
    if let Some(why) = why {
        tracing::warn!(why, "io_uring can't be used here; images are written with pwrite");
    }
    let (inputs, receiver) = mpsc::unbounded_channel();
    let db = NodeDb::open(&layout)?;
    let quic = config.quic;
    let files = Files::new(FilesConfig { programs: layout.commands(), links: layout.live_links(), keeping });
    let vmms = Vmms { qemu: vmm, files: Arc::new(files) };
    let node = Arc::new(Node::new(Parts { layout, config, key, store, db, vmms, engine, inputs }));
    // Before any peer is heard: a message must not meet a participant that does not know yet what it has promised.
    recover::recover(&node).await?;
    let peers = Arc::new(Peers { node: Arc::clone(&node), api: OnceLock::new() });
    let transport = Transport::bind(quic, &node.key, Arc::clone(&peers) as _).map_err(|e| {
        ApiError::new(ErrorCode::WrongState, format!("UDP {quic} can't be used"))
            .cause(chain(&e))
            .remedy("stop what uses it, or make the node with another --quic")
    })?;
    let transport = Arc::new(transport);
    // The first and only time.
    let _ = node.transport.set(Arc::downgrade(&transport));
    let driver = tokio::spawn(driver::run(Arc::clone(&node), receiver));
    let core: Arc<dyn Core> = Arc::new(Engine { node: Arc::clone(&node) });
    let router = crate::api::router(core);
    let _ = peers.api.set(router.clone());
    tracing::info!(node = %node.id(), api = %node.config.api, quic = %quic, "running");
    // Whoever watches an attempt holds a connection open as long as it takes: that must not keep the node.
    let stop = CancellationToken::new();
    tokio::spawn({
        let (stop, node) = (stop.clone(), Arc::downgrade(&node));
        async move {
            shutdown.await;
            // While the API is still there: whoever follows a commit hears how it ends.
            if let Some(node) = node.upgrade() {
                ending::wind_down(&node).await;
            }
            stop.cancel();
        }
    });
    let standbys = tokio::spawn(standby::follow(Arc::clone(&node), stop.clone()));
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future();
    let too_long = async {
        stop.cancelled().await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    let ended = tokio::select! {
        () = too_long => Ok(()),
        served = served => served.map_err(|e| ApiError::internal("serve the API", e)),
        driver = driver => Err(ApiError::internal("run the commit protocol", match driver {
            Ok(()) => "its loop has ended".to_owned(),
            Err(panic) => panic.to_string(),
        })),
    };
    stop.cancel();
    // While the directory is still this node's alone.
    let _ = standbys.await;
    transport.close().await;
    ended
}

/// The lock that says that a process runs this node.
pub(super) fn lock(layout: &Layout) -> Result<File, ApiError> {
    let path = layout.lock();
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|e| ApiError::io("open", &path, &e))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        ApiError::new(ErrorCode::WrongState, format!("{} is in use by another process", layout.root().display()))
            .remedy("a node runs once: stop the other `form node run`, or use the one that is there")
    })?;
    Ok(file)
}

fn taken(what: &str, addr: SocketAddr, cause: &std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::WrongState, format!("the {what} address {addr} can't be used"))
        .cause(cause)
        .remedy("stop what listens there, or make the node with another --api")
}

pub(crate) fn engine_name(engine: form_delta::Engine) -> &'static str {
    match engine {
        form_delta::Engine::Uring => "io_uring",
        form_delta::Engine::Pwrite => "pwrite",
    }
}
