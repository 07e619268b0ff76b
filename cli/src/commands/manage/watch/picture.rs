//! What is known at one moment: clusters as the state store has them, and what is in flight as each node keeps it.

use std::collections::{BTreeMap, BTreeSet};

use form_node::ApiError;
use form_node::api::flight::FlightView;
use serde::Serialize;
use tokio::time::{Duration, timeout};

use super::Line;
use super::waits::waits;
use crate::client::{Client, segment};
use crate::clock;
use crate::commands::manage::clusters::{self, Cluster};
use crate::units::{short, utc};

/// A node that is asked through another one, and may be gone.
const OTHER_NODE_WAIT: Duration = Duration::from_secs(3);

/// As it was when it could be asked last.
#[derive(Default, Serialize)]
pub(super) struct Picture {
    /// Unix time of the last look, ms.
    time_ms: u64,
    /// Why the node that is asked did not answer; what else stands here is from before.
    lost: Option<ApiError>,
    /// Why the state store did not answer; then the clusters are from before.
    store_lost: Option<ApiError>,
    clusters: Vec<Cluster>,
    /// Each node's, by its id.
    flight: BTreeMap<String, FlightView>,
    /// Nodes that take part and were not heard, and why.
    unheard: BTreeMap<String, String>,
    /// What stands in words for people, of all clusters.
    waits: Vec<String>,
    #[serde(skip)]
    own: String,
    #[serde(skip)]
    url: String,
}

impl Picture {
    pub(super) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Asks for all of it again.
    ///
    /// # Errors
    /// The node itself does not answer, or not as a node does.
    pub(super) async fn look(&mut self, client: &Client, only: Option<&str>) -> Result<(), ApiError> {
        // This needs no store: it tells a node that is away from one whose store is.
        let own: FlightView = client.get("/api/v1/flight").await?;
        (self.lost, self.url, self.own) = (None, client.node().to_string(), own.node_id.clone());
        match Cluster::list(client).await {
            Ok(clusters) => {
                let wanted = |cluster: &Cluster| only.is_none_or(|only| cluster.id() == only);
                self.clusters = clusters.into_iter().filter(wanted).collect();
                self.store_lost = None;
            }
            Err(error) => self.store_lost = Some(error),
        }
        let in_flight = self.clusters.iter().filter(|cluster| cluster.is_in_flight());
        let nodes: BTreeSet<String> = in_flight.flat_map(Cluster::nodes).filter(|id| *id != self.own).collect();
        self.flight = BTreeMap::from([(self.own.clone(), own)]);
        self.unheard.clear();
        for id in nodes {
            let path = format!("/api/v1/nodes/{}/flight", segment(&id));
            let why = match timeout(OTHER_NODE_WAIT, client.get::<FlightView>(&path)).await {
                Ok(Ok(view)) => {
                    self.flight.insert(id, view);
                    continue;
                }
                Ok(Err(error)) => error.message,
                Err(_) => format!("no answer within {} s", OTHER_NODE_WAIT.as_secs()),
            };
            self.unheard.insert(id, why);
        }
        self.seen();
        Ok(())
    }

    /// The node that is asked is away; all else stays as it was.
    pub(super) fn lose(&mut self, error: ApiError) {
        self.lost = Some(error);
        self.seen();
    }

    fn seen(&mut self) {
        self.time_ms = clock::now_ms();
        self.waits = self.clusters.iter().flat_map(|cluster| self.waits(cluster)).map(|line| line.text).collect();
    }

    fn waits(&self, cluster: &Cluster) -> Vec<Line> {
        waits(cluster, &self.flight, &self.unheard)
    }

    /// How it stands with whom is asked.
    fn sources(&self) -> Vec<Line> {
        let node = match &self.lost {
            None => Line::new(format!("node {} answers", short(&self.own))),
            Some(error) => Line::keyed(
                "lost",
                format!("{}; asked again every second, and what it said last still stands", error.message),
            ),
        };
        // Where something is in flight, who waits for the store is said there.
        let silent_ms = self.flight.values().filter_map(|view| view.store_silent_ms).max();
        let store = match (&self.store_lost, silent_ms) {
            (None, None) => None,
            (error, ms) => {
                let lasts = ms.map_or_else(String::new, |ms| format!(" for {} s", ms / 1000));
                let why = error.as_ref().and_then(|error| error.cause.as_deref().or(Some(&error.message)));
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                Some(Line::keyed(
                    "store lost",
                    format!(
                        "the state store has not answered{lasts}{why}: no commit begins or ends until it does; bring it back"
                    ),
                ))
            }
        };
        [Some(node), store].into_iter().flatten().collect()
    }

    /// All that is so, a line each.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = self.sources();
        if self.clusters.is_empty() {
            lines.push(Line::new("no instances"));
        }
        for cluster in &self.clusters {
            lines.push(Line::new(clusters::heading(cluster)));
            lines.extend(clusters::instance_lines(cluster).into_iter().map(Line::new));
            lines.extend(self.waits(cluster));
        }
        lines
    }

    /// The same for a screen.
    pub(super) fn screen(&self) -> String {
        let mut text = format!("{}, {}; Ctrl-C ends\n", self.url, utc(self.time_ms));
        for line in self.sources() {
            text += &format!("{}\n", line.text);
        }
        for cluster in &self.clusters {
            text += &format!("\n{}\n{}\n", clusters::heading(cluster), clusters::table(cluster));
            for line in self.waits(cluster) {
                text += &format!("{}\n", line.text);
            }
        }
        text.trim_end().to_owned()
    }
}
