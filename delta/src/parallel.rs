use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{Result, limits::THREADS_MAX};

/// Runs jobs `0..count` on the CPUs there are and returns their results in the order of the jobs, so that what is computed never depends on the number of
/// threads. `state` is made once per thread (a buffer, a compression context). After an error no new job begins; the error of the lowest job is returned.
pub(crate) fn map<S, T: Send>(
    count: usize,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(count);
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
                return;
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
}
