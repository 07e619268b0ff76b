//! The request itself is bad. One instance, never started: what would go through would change its record.

use form_node::ErrorCode;
use form_node::api::types::InstanceView;
use form_tests::{Assets, Cluster, Form, NodeOptions, Result, Scene, send};

use crate::expect::refused;
use crate::key::random_key;
use crate::signed::{SignedCommit, now_ms};

struct World {
    cluster: Cluster,
    key: String,
    one: InstanceView,
}

impl World {
    fn new() -> Result<Self> {
        let key = random_key()?;
        let plan = vec![NodeOptions::local()?];
        let cluster = Cluster::start(Scene::new()?, Assets::find()?, plan, ("FORM_PRIVATE_KEY", key.clone()))?;
        cluster.create(1, "one")?;
        let one = cluster.form(1).instance("one")?;
        Ok(Self { cluster, key, one })
    }

    fn form(&self) -> Form {
        self.cluster.form(1)
    }

    fn end(self) -> Result<()> {
        assert_eq!(self.form().instance("one")?, self.one, "nothing changed");
        self.cluster.shut_down()
    }
}

#[test]
fn which_instance_is_not_clear() -> Result<()> {
    let world = World::new()?;
    let form = world.form();
    refused(&form.refused(&["manage", "commit"])?, ErrorCode::BadRequest, &["--id", "--name"]);
    let both = ["manage", "commit", "--name", "one", "--id", &world.one.instance_id];
    refused(&form.refused(&both)?, ErrorCode::BadRequest, &["--name"]);
    refused(&form.refused(&["manage", "commit", "--name", "two"])?, ErrorCode::NotFound, &["two"]);
    let unknown = "0".repeat(40);
    refused(&form.refused(&["manage", "commit", "--id", &unknown])?, ErrorCode::NotFound, &[&unknown]);

    // And the node does not rely on the command line for it.
    let api = world.one_api();
    for body in ["{}", r#"{"id":"1","name":"one"}"#] {
        let reply = send(api, "POST", "/api/v1/commit", &[], body)?;
        assert_eq!((reply.status, reply.error()?.code), (400, ErrorCode::BadRequest), "{reply:?}");
    }
    let reply = send(api, "POST", "/api/v1/commit", &[], r#"{"name":"two"}"#)?;
    assert_eq!((reply.status, reply.error()?.code), (404, ErrorCode::NotFound), "{reply:?}");
    world.end()
}

#[test]
fn which_key_is_not_clear() -> Result<()> {
    let world = World::new()?;
    let form = world.form().without_key();
    let commit = ["manage", "commit", "--name", "one"];
    refused(&form.refused(&commit)?, ErrorCode::BadKey, &["no key"]);

    let words = format!("{}junk", "test ".repeat(11));
    let with = |more: &[&str]| form.refused(&[&commit, more].concat());
    let two = with(&["--private-key", &world.key, "--mnemonic", &words])?;
    refused(&two, ErrorCode::BadKey, &["--private-key", "--mnemonic"]);
    let bad_checksum = "test ".repeat(12);
    refused(&with(&["--mnemonic", &bad_checksum])?, ErrorCode::BadKey, &["checksum"]);
    refused(&with(&["--private-key", "0x12"])?, ErrorCode::BadKey, &["64 hex digits"]);
    refused(&with(&["--keyfile", "/nowhere/key"])?, ErrorCode::Unsupported, &["--keyfile"]);
    world.end()
}

#[test]
fn a_signer_who_may_not() -> Result<()> {
    let world = World::new()?;
    let stranger = world.form().with("FORM_PRIVATE_KEY", random_key()?);
    let commit = ["manage", "commit", "--name", "one"];
    refused(&stranger.refused(&commit)?, ErrorCode::NotAllowed, &[]);
    // An operator may look, and not commit.
    let (mnemonic, address) = stranger.new_account()?;
    let grant = ["account", "grant", "--instance", "one", "--address", &address, "--level", "operator"];
    let _: serde_json::Value = world.form().json(&grant)?;
    let operator = world.form().without_key().with("FORM_MNEMONIC", mnemonic);
    refused(&operator.refused(&commit)?, ErrorCode::NotAllowed, &[]);
    // Nor may they give themselves more.
    let more = ["account", "grant", "--instance", "one", "--address", &address, "--level", "manager"];
    refused(&operator.refused(&more)?, ErrorCode::NotAllowed, &[]);
    world.end()
}

#[test]
fn a_stale_request() -> Result<()> {
    let world = World::new()?;
    let installation = world.installation()?;
    for time_ms in [now_ms() - 70_000, now_ms() + 70_000] {
        let reply = SignedCommit::new(&world.key, &installation, &world.one, time_ms, "")?.send(world.one_api())?;
        assert_eq!((reply.status, reply.error()?.code), (403, ErrorCode::StaleRequest), "{reply:?}");
        assert!(reply.error()?.remedy.is_some(), "{reply:?}");
    }
    // For another installation's node it is no request at all, however fresh.
    let reply = SignedCommit::new(&world.key, "elsewhere", &world.one, now_ms(), "")?.send(world.one_api())?;
    assert_eq!((reply.status, reply.error()?.code), (403, ErrorCode::NotAllowed), "{reply:?}");
    world.end()
}

#[test]
fn an_instance_alone_in_its_cluster() -> Result<()> {
    let world = World::new()?;
    let refusal = world.form().refused(&["manage", "commit", "--name", "one"])?;
    refused(&refusal, ErrorCode::WrongState, &["one", "alone"]);
    world.end()
}

impl World {
    fn one_api(&self) -> std::net::SocketAddr {
        self.cluster.node_ref(1).options().api
    }

    fn installation(&self) -> Result<String> {
        Ok(self.cluster.node_ref(1).view()?.installation_id)
    }
}
