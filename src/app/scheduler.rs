//! Wakes target loops on their schedules: one cron job per distinct schedule, because tokio-cron-scheduler
//! checks each job twice a second.
//!
//! A tick only wakes, at most 500 targets a second, so that thousands do not send requests at the same
//! instant. Whether an update is due follows from what the target holds (`docs/decisions/0009`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::Notify, time::sleep};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::config::Schedule;

/// How many targets are woken at once, and the pause between two batches: 500 a second, so that a process
/// with 10,000 targets wakes all of them within 20 s, and one with ten at once.
const BATCH_SIZE: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Scheduler {
    scheduler: JobScheduler,
    followed: Arc<tokio::sync::Mutex<HashMap<String, (Job, Followers)>>>,
}

/// The loops that follow one schedule; dropped ones are removed.
#[derive(Clone, Default)]
struct Followers {
    waiting: Arc<Mutex<Vec<Weak<Notify>>>>,
    /// Held during a walk: a tick that arrives meanwhile is skipped.
    walk: Arc<tokio::sync::Mutex<()>>,
}

impl Scheduler {
    pub(super) async fn start() -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.start().await?;
        Ok(Self { scheduler, followed: Arc::default() })
    }

    /// Returns a handle that is notified on the schedule from now on. It only wakes: a missed or doubled tick
    /// is harmless.
    pub(super) async fn follow(&self, schedule: &Schedule) -> Result<Arc<Notify>, JobSchedulerError> {
        let follower = Arc::new(Notify::new());
        let mut followed = self.followed.lock().await;
        if let Some((_, followers)) = followed.get(schedule.as_str()) {
            followers.add(&follower);
            return Ok(follower);
        }
        let followers = Followers::default();
        followers.add(&follower);
        let woken = followers.clone();
        let walk = move |_, _| -> BoxFuture<'static, ()> {
            let followers = woken.clone();
            Box::pin(async move { followers.wake().await })
        };
        let job = Job::new_async(schedule.as_six_fields(), walk)?;
        self.scheduler.add(job.clone()).await?;
        followed.insert(schedule.as_str().to_owned(), (job, followers));
        Ok(follower)
    }

    /// Removes schedules without followers.
    pub(super) async fn remove_unused(&self) -> Result<(), JobSchedulerError> {
        let mut followed = self.followed.lock().await;
        let idle: Vec<String> = followed
            .iter()
            .filter(|(_, (_, followers))| followers.present().is_empty())
            .map(|(schedule, _)| schedule.clone())
            .collect();
        for schedule in idle {
            if let Some((job, _)) = followed.remove(&schedule) {
                self.scheduler.remove(&job.guid()).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) -> Result<(), JobSchedulerError> {
        self.scheduler.shutdown().await
    }
}

impl Followers {
    fn add(&self, follower: &Arc<Notify>) {
        self.lock().push(Arc::downgrade(follower));
    }

    /// The followers that still exist.
    fn present(&self) -> Vec<Arc<Notify>> {
        let mut waiting = self.lock();
        waiting.retain(|follower| follower.strong_count() > 0);
        waiting.iter().filter_map(Weak::upgrade).collect()
    }

    async fn wake(&self) {
        let Ok(_alone) = self.walk.try_lock() else { return };
        for stride in self.present().chunks(BATCH_SIZE) {
            for follower in stride {
                follower.notify_one();
            }
            sleep(PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Notify>>> {
        self.waiting.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests;
