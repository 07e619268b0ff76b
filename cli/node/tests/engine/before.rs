//! What stood before an attempt, to be compared with what stands after it.

use std::path::PathBuf;

use form_node::store::InstanceStatus;

use crate::scene::{Scene, same};

/// An artifact, and a copy of its image.
type Copied = (&'static str, PathBuf);

/// What each instance runs: its VM's directory, and copies of its images.
pub(crate) struct Before {
    head: String,
    instances: Vec<(String, PathBuf, Vec<Copied>)>,
    _dir: tempfile::TempDir,
}

impl Before {
    pub(crate) async fn of(scene: &Scene) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut instances = Vec::new();
        for name in scene.places.keys() {
            let copy = |artifact| {
                let to = dir.path().join(format!("{name}.{artifact}"));
                form_delta::clone_image(&scene.live(name, artifact), &to).expect("copy");
                (artifact, to)
            };
            instances.push((name.clone(), scene.live_dir(name), ["memory", "root"].map(copy).to_vec()));
        }
        Self { head: scene.head().await, instances, _dir: dir }
    }

    /// Nothing has changed.
    pub(crate) async fn still_holds(&self, scene: &Scene) {
        assert_eq!(scene.head().await, self.head);
        for (name, live_dir, images) in &self.instances {
            assert_eq!(scene.live_dir(name), *live_dir, "{name} runs in another VM");
            for (artifact, copy) in images {
                assert!(same(&scene.live(name, artifact), copy), "{artifact} of {name} has changed");
            }
            let record = scene.instance(name).await;
            assert_eq!(record.current_commit.as_deref(), Some(self.head.as_str()), "{name}");
            assert_eq!(record.status, InstanceStatus::Started, "{name}");
        }
    }
}
