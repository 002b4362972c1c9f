//! Something that happens again and again until it is dropped.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that calls a function every so often; ends when dropped.
#[derive(Debug)]
pub(in crate::cli) struct Pulse {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Calls `beat` every `period`, the first time after one.
    pub(in crate::cli) fn start(
        period: Duration,
        mut beat: impl FnMut() + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("pulse".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(period)
                    == Err(RecvTimeoutError::Timeout)
                {
                    beat();
                }
            })
            // Without it the job runs just as well, only silently.
            .ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A beat that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn nothing_happens_after_the_drop() {
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let (beaten, beats) = channel();
        let pulse = Pulse::start(Duration::from_millis(1), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = beaten.send(());
        });
        beats.recv().unwrap();
        drop(pulse);
        let after = count.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(count.load(Ordering::Relaxed), after);
    }
}
