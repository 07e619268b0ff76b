use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::{Result, limits::THREADS_MAX};

/// Runs jobs `0..count` on the CPUs there are and returns their results in the order of the jobs, so that what is computed never depends on the number of
/// threads. A thread that has nothing to do takes the next job. `state` is made once per thread (a buffer, a compression context). After an error no new job
/// begins; the error of the lowest job is returned.
pub(crate) fn map<S, T: Send>(
    count: usize,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = threads().min(count);
    if threads <= 1 {
        let mut state = state();
        return (0..count).map(|number| job(&mut state, number)).collect();
    }

    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    let work = || {
        let mut state = state();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let result = job(&mut state, number);
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How many threads [`map`] has when there are at least as many jobs.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// As [`map`], with each result handed to `take` on the calling thread, in the order of the jobs and while they go on. For each thread at most `ahead` jobs are
/// begun and not yet taken, and there are at most `threads_max` threads: that bounds memory. After an error nothing more is handed on.
pub(crate) fn in_order<J, S, T: Send>(
    threads_max: usize,
    ahead: usize,
    jobs: impl Iterator<Item = J> + Send,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, J) -> Result<T> + Sync,
    take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let mut take = take;
    let threads = threads().min(threads_max);
    let (permits, permitted) = mpsc::channel();
    for _ in 0..ahead * threads {
        // The other end is in our hands.
        let _ = permits.send(());
    }
    let jobs = Mutex::new((jobs.enumerate(), permitted));
    // Only this thread gives permits: without any more, nothing begins.
    let next = || {
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.1.recv().ok()?;
        jobs.0.next()
    };
    let work = |results: mpsc::Sender<_>| {
        let mut state = state();
        while let Some((number, next)) = next() {
            // A panic that took its result with it would leave us waiting for that.
            let result = catch_unwind(AssertUnwindSafe(|| job(&mut state, next)));
            if results.send((number, result)).is_err() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        // Taken into the scope: an error ends it, and with it the permits and the results' way.
        let permits = permits;
        let (sender, results) = mpsc::channel();
        for _ in 0..threads {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (number, result) in results {
            waiting.insert(number, result);
            while let Some(result) = waiting.remove(&next) {
                take(result.unwrap_or_else(|panic| resume_unwind(panic))?)?;
                next += 1;
                let _ = permits.send(());
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Object};

    #[test]
    fn results_keep_the_order_of_the_jobs() {
        let squares = map(1000, || (), |(), n| Ok(n * n)).unwrap();
        assert_eq!(squares, (0..1000).map(|n| n * n).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_ends_the_work() {
        let error = map(
            1000,
            || (),
            |(), n| {
                if n == 7 { Err(Error::damaged(Object::Image, 7, "test")) } else { Ok(n) }
            },
        )
        .unwrap_err();
        assert!(matches!(error, Error::Damaged { offset_bytes: 7, .. }));
    }

    #[test]
    fn results_are_handed_on_in_order_and_few_are_ahead() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (begun, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let jobs = (0..500).inspect(|_| {
            let ahead = begun.fetch_add(1, SeqCst) + 1 - taken.load(SeqCst);
            assert!(ahead <= 2 * threads() + 1, "{ahead} jobs are begun and not taken");
        });
        let take = |n| {
            assert_eq!(n, taken.fetch_add(1, SeqCst));
            Ok(())
        };
        in_order(THREADS_MAX, 2, jobs, || (), |(), n: usize| Ok(n), take).unwrap();
        assert_eq!(taken.load(SeqCst), 500);
    }

    #[test]
    fn whoever_takes_may_end_it() {
        let mut taken = 0;
        let take = |n: usize| {
            taken = n;
            if n == 3 { Err(Error::damaged(Object::Image, 3, "test")) } else { Ok(()) }
        };
        in_order(THREADS_MAX, 2, 0..1_000_000, || (), |(), n| Ok(n), take).unwrap_err();
        assert_eq!(taken, 3);
    }

    #[test]
    #[should_panic(expected = "job 7")]
    fn a_panic_is_passed_on() {
        let _ = in_order(
            THREADS_MAX,
            2,
            0..1000,
            || (),
            |(), n| if n == 7 { panic!("job {n}") } else { Ok(n) },
            |_| Ok(()),
        );
    }
}
