//! Where a test reaches into running nodes: at a step it waits, acts, or makes it fail. Each hook works once.

use std::sync::{Arc, Mutex};

use form_vmm_hooks::fake::Step;
use tokio::sync::Semaphore;

/// A step that can be hooked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A node asks its monitor what the host is: in a preflight, and when a target checks an offer.
    Host(usize),
    /// The monitor is about to do this with the instance of that name.
    Vm(String, Step),
    /// A node is about to read a key with this prefix from the state store.
    Read(usize, &'static str),
    /// A node is about to write a key with this prefix to the state store.
    Write(usize, &'static str),
    /// It has written it, and has not heard so yet.
    Written(usize, &'static str),
}

pub(crate) fn vm(name: &str, step: Step) -> Point {
    Point::Vm(name.into(), step)
}

type Act = Box<dyn FnOnce() + Send>;

enum Deed {
    Hold(Hold),
    Act(Act),
    Fail,
}

/// A step that waits.
#[derive(Clone)]
pub(crate) struct Hold {
    reached: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Hold {
    /// Waits until the step is held.
    pub(crate) async fn reached(&self) {
        let patience = std::time::Duration::from_secs(30);
        let reached = tokio::time::timeout(patience, self.reached.acquire()).await;
        reached.expect("the step is not reached").expect("open").forget();
    }

    /// Lets the step go on.
    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }
}

/// All hooks of a scene.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    hooked: Arc<Mutex<Vec<(Point, Deed)>>>,
    counted: Arc<Mutex<Counted>>,
}

/// Steps since [`Hooks::nth`].
#[derive(Default)]
struct Counted {
    count: u64,
    armed: Option<(u64, Deed)>,
    hit: Option<String>,
}

impl Hooks {
    /// The next such step waits until it is released.
    pub(crate) fn hold(&self, point: Point) -> Hold {
        let hold = Hold { reached: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) };
        self.add(point, Deed::Hold(hold.clone()));
        hold
    }

    /// Just before the next such step, `act` is run.
    pub(crate) fn act(&self, point: Point, act: impl FnOnce() + Send + 'static) {
        self.add(point, Deed::Act(Box::new(act)));
    }

    /// The next such step fails.
    pub(crate) fn fail(&self, point: Point) {
        self.add(point, Deed::Fail);
    }

    /// The step of that number from now on, from 1, whichever it is, fails.
    pub(crate) fn fail_nth(&self, at: u64) {
        self.nth(at, Deed::Fail);
    }

    /// It waits until it is released.
    pub(crate) fn hold_nth(&self, at: u64) -> Hold {
        let hold = Hold { reached: Arc::new(Semaphore::new(0)), released: Arc::new(Semaphore::new(0)) };
        self.nth(at, Deed::Hold(hold.clone()));
        hold
    }

    /// None is to fail or to wait any more.
    pub(crate) fn disarm(&self) {
        self.counted.lock().expect("lock").armed = None;
    }

    fn nth(&self, at: u64, deed: Deed) {
        *self.counted.lock().expect("lock") = Counted { count: 0, armed: Some((at, deed)), hit: None };
    }

    /// Steps since one was to fail or to wait.
    pub(crate) fn count(&self) -> u64 {
        self.counted.lock().expect("lock").count
    }

    /// The step that failed or waited.
    pub(crate) fn hit(&self) -> Option<String> {
        self.counted.lock().expect("lock").hit.clone()
    }

    fn counted(&self, what: &str) -> Option<Deed> {
        let mut counted = self.counted.lock().expect("lock");
        counted.count += 1;
        let now = counted.count;
        let (_, deed) = counted.armed.take_if(|(at, _)| *at == now)?;
        counted.hit = Some(what.to_owned());
        Some(deed)
    }

    /// Steps are as they were.
    pub(crate) fn clear(&self) {
        self.hooked.lock().expect("lock").clear();
    }

    /// Hooks that no step has met.
    pub(crate) fn left(&self) -> Vec<Point> {
        self.hooked.lock().expect("lock").iter().map(|(point, _)| point.clone()).collect()
    }

    fn add(&self, point: Point, deed: Deed) {
        self.hooked.lock().expect("lock").push((point, deed));
    }

    /// A step that fits is here; `what` is what a person calls it. False: it is to fail.
    pub(crate) async fn pass(&self, what: &str, fits: impl Fn(&Point) -> bool) -> bool {
        let deed = self.counted(what).or_else(|| {
            let mut hooks = self.hooked.lock().expect("lock");
            let found = hooks.iter().position(|(point, _)| fits(point));
            found.map(|found| hooks.remove(found).1)
        });
        match deed {
            None => true,
            Some(Deed::Fail) => false,
            Some(Deed::Act(act)) => {
                act();
                true
            }
            Some(Deed::Hold(hold)) => {
                hold.reached.add_permits(1);
                hold.released.acquire().await.expect("open").forget();
                true
            }
        }
    }
}
