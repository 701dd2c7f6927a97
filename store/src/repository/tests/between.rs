//! A storage in which something happens between two calls of a client.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::repository::backend::{Backend, Listed, Memory, StorageTime};

type Hook = Box<dyn FnOnce() + Send>;

/// Runs something in the middle of another client's calls.
pub(super) struct Between {
    inner: Arc<Memory>,
    calls: AtomicU64,
    at: u64,
    hook: Mutex<Option<Hook>>,
}

impl Between {
    /// Runs `hook` before the call after `at` more.
    pub(super) fn new(inner: Arc<Memory>, at: u64, hook: impl FnOnce() + Send + 'static) -> Self {
        Self {
            inner,
            calls: AtomicU64::new(0),
            at,
            hook: Mutex::new(Some(Box::new(hook))),
        }
    }

    /// Whether it came to that.
    pub(super) fn came(&self) -> bool {
        self.hook.lock().unwrap().is_none()
    }

    fn call(&self) -> &Memory {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            let hook = self.hook.lock().unwrap().take();
            if let Some(hook) = hook {
                hook();
            }
        }
        &self.inner
    }
}

impl Backend for Between {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.call().create(name, bytes)
    }
    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        self.call().read(name, max)
    }
    fn read_range(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.call().read_range(name, offset, into)
    }
    fn list(&self, prefix: &str) -> io::Result<Vec<Listed>> {
        self.call().list(prefix)
    }
    fn stat(&self, name: &str) -> io::Result<Listed> {
        self.call().stat(name)
    }
    fn delete(&self, name: &str) -> io::Result<()> {
        self.call().delete(name)
    }
    fn now(&self) -> io::Result<StorageTime> {
        self.call().now()
    }
}
