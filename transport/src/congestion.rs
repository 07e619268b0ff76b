//! CUBIC, out of the way at the end.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;

use crate::limits::INITIAL_WINDOW_BYTES;

/// Set when the node shuts down.
///
/// quinn-proto up to 0.11.19 holds CONNECTION_CLOSE back while the congestion window is full, and once closed it
/// no longer reads the acknowledgements that would open the window (<https://github.com/quinn-rs/quinn/issues/2785>):
/// a peer in the middle of a fetch would hear nothing and wait for its idle timeout. So the window opens at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<AtomicBool>);

impl Ending {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl ControllerFactory for Ending {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(INITIAL_WINDOW_BYTES);
        Box::new(OpenAtEnd { cubic: Arc::new(cubic).build(now, current_mtu), ending: Self::clone(&self) })
    }
}

struct OpenAtEnd {
    cubic: Box<dyn Controller>,
    ending: Ending,
}

impl Controller for OpenAtEnd {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.ending.0.load(Ordering::Acquire) { u64::MAX } else { self.cubic.window() }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), ending: self.ending.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
