//! The host is not as a node needs it.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use form_node::ErrorCode;
use form_tests::{Assets, Cluster, Context, Form, Node, NodeOptions, Result, Scene};

use crate::expect::refused;
use crate::key::random_key;

fn cluster(qemu: Option<PathBuf>) -> Result<Cluster> {
    let plan = vec![NodeOptions { qemu, ..NodeOptions::local()? }];
    Cluster::start(Scene::new()?, Assets::find()?, plan, ("FORM_PRIVATE_KEY", random_key()?))
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_data_directory_in_use() -> Result<()> {
    let mut cluster = cluster(None)?;
    let data = cluster.node(1).data().to_owned();
    let data_text = data.to_string_lossy();
    let before = entries(&data);
    let second = cluster.form(1).refused(&["node", "run", "--data", &data_text])?;
    refused(&second, ErrorCode::WrongState, &[&data_text, "in use"]);
    let again =
        cluster.form(1).refused(&["node", "init", "--data", &data_text, "--store", "sqlite:/nowhere/state.db"])?;
    refused(&again, ErrorCode::WrongState, &[&data_text, "not empty"]);
    assert_eq!(entries(&data), before);
    assert!(cluster.node(1).view().is_ok(), "the node that is there goes on");
    cluster.shut_down()
}

#[test]
fn a_port_in_use() -> Result<()> {
    let (assets, scene) = (Assets::find()?, Scene::new()?);
    std::fs::create_dir(scene.dir().join("store")).context(|| "make the store".into())?;
    let options = NodeOptions::local()?;
    let node = Node::init(&scene, "n1", &assets.form, options.clone())?;
    let run = ["node", "run", "--data", &node.data().to_string_lossy()];
    let form = Form::new(assets.form, None);

    let tcp = TcpListener::bind(options.api).context(|| "take the API's port".into())?;
    refused(&form.refused(&run)?, ErrorCode::WrongState, &[&options.api.to_string()]);
    drop(tcp);
    let udp = UdpSocket::bind(options.quic).context(|| "take the transport's port".into())?;
    refused(&form.refused(&run)?, ErrorCode::WrongState, &[&options.quic.to_string()]);
    drop(udp);
    Ok(())
}

#[test]
fn a_missing_qemu() -> Result<()> {
    let cluster = cluster(Some("/nowhere/qemu".into()))?;
    let spec = cluster.scene().dir().join("guest.toml");
    let create = ["manage", "create", "--name", "one", "--spec", &spec.to_string_lossy()];
    refused(&cluster.form(1).refused(&create)?, ErrorCode::MissingDependency, &["/nowhere/qemu"]);
    assert_eq!(cluster.form(1).instances()?, []);
    cluster.shut_down()
}

#[test]
fn a_missing_kernel() -> Result<()> {
    let mut cluster = cluster(None)?;
    let spec = cluster.scene().dir().join("without-kernel.toml");
    let text = cluster.assets().spec().replace(&*cluster.assets().kernel.to_string_lossy(), "/nowhere/vmlinuz");
    std::fs::write(&spec, text).context(|| "write a spec".into())?;
    let create = ["manage", "create", "--name", "one", "--spec", &spec.to_string_lossy()];
    refused(&cluster.form(1).refused(&create)?, ErrorCode::MissingDependency, &["/nowhere/vmlinuz"]);
    assert_eq!(cluster.form(1).instances()?, []);
    assert_eq!(entries(&cluster.node(1).data().join("instances")), [""; 0]);
    cluster.shut_down()
}

#[test]
fn a_node_that_is_not_there() -> Result<()> {
    let options = NodeOptions::local()?;
    let form = Form::new(Assets::find()?.form, None)
        .with("FORM_NODE", format!("http://{}", options.api))
        .with("FORM_PRIVATE_KEY", random_key()?);
    let commit = form.refused(&["manage", "commit", "--name", "one"])?;
    refused(&commit, ErrorCode::Unavailable, &[&options.api.to_string()]);
    Ok(())
}
