use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use crate::{Result, limits::THREADS_MAX};

/// Runs jobs `0..count`, as [`each`] does.
pub(crate) fn map<S, T: Send>(
    count: usize,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    each(count, 0..count, state, job)
}

/// Runs jobs, at most `count`, on the CPUs there are and returns their results in the order of the jobs, so that what is computed never depends on the number
/// of threads. A thread that has nothing to do takes the next job; making jobs may be work itself, and one thread at a time does it. `state` is made once per
/// thread (a buffer, a compression context). After an error no new job begins; the error of the lowest job is returned.
pub(crate) fn each<J, S, T: Send>(
    count: usize,
    jobs: impl Iterator<Item = J> + Send,
    state: impl Fn() -> S + Sync,
    job: impl Fn(&mut S, J) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(count);
    if threads <= 1 {
        let mut state = state();
        return jobs.map(|next| job(&mut state, next)).collect();
    }

    let jobs = Mutex::new((jobs.enumerate(), true));
    let done = Mutex::new(Vec::new());
    let take = || {
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.1.then(|| jobs.0.next()).flatten()
    };
    let work = || {
        let mut state = state();
        while let Some((number, next)) = take() {
            let result = job(&mut state, next);
            if result.is_err() {
                jobs.lock().unwrap_or_else(PoisonError::into_inner).1 = false;
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
