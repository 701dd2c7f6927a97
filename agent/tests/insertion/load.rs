//! Load on a mounted file system, which notices any sector that was lost or mixed up.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::rig::{run, text};

/// fio with verification, and buffered writes of files whose sums are kept.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    fio: Option<JoinHandle<u32>>,
    copies: Option<JoinHandle<Vec<(PathBuf, blake3::Hash)>>>,
}

impl Load {
    pub(crate) fn start(point: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (fio_stop, fio_point) = (Arc::clone(&stop), point.to_owned());
        let fio = thread::spawn(move || {
            let mut jobs = 0;
            while !fio_stop.load(Ordering::Relaxed) {
                verify_job(&fio_point, jobs);
                jobs += 1;
            }
            jobs
        });
        let (copies_stop, copies_point) = (Arc::clone(&stop), point.to_owned());
        let copies = thread::spawn(move || write_files(&copies_point, &copies_stop));
        Self {
            stop,
            fio: Some(fio),
            copies: Some(copies),
        }
    }

    /// Ends the load, reads every file back from the device, and gives how much there was: jobs
    /// of fio and files.
    pub(crate) fn finish(mut self) -> (u32, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let jobs = self.fio.take().unwrap().join().expect("fio found no fault");
        let files = self
            .copies
            .take()
            .unwrap()
            .join()
            .expect("files could be written");
        nix::unistd::sync();
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        for (path, sum) in &files {
            let now = blake3::hash(&fs::read(path).unwrap());
            assert_eq!(now, *sum, "{}", path.display());
        }
        (jobs, files.len())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Random writes of mixed sizes with fsyncs and trims of what was written, then read back.
fn verify_job(point: &Path, seed: u32) {
    let (directory, seed) = (format!("--directory={}", text(point)), seed + 1);
    let seed = format!("--randseed={seed}");
    let fixed = "--name=verify --filename=fio --rw=randwrite --bsrange=4k-64k --size=4m \
                 --ioengine=libaio --iodepth=16 --direct=1 --fsync=32 --verify=crc32c \
                 --do_verify=1 --verify_fatal=1 --output-format=terse --fallocate=none";
    let mut args: Vec<_> = fixed.split_ascii_whitespace().collect();
    args.extend([directory.as_str(), seed.as_str()]);
    run("fio", &args);
}

fn write_files(point: &Path, stop: &AtomicBool) -> Vec<(PathBuf, blake3::Hash)> {
    const KEPT: u64 = 24;
    let mut files: Vec<(PathBuf, blake3::Hash)> = Vec::new();
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let len = usize::try_from(1 + number * 40_009 % 600_000).unwrap();
        let mut data = vec![0; len];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher.finalize_xof().fill(&mut data);
        // Names come again, so that blocks are freed and written anew.
        let path = point.join(format!("file-{}", number % KEPT));
        fs::write(&path, &data).unwrap();
        files.retain(|(known, _)| *known != path);
        files.push((path, blake3::hash(&data)));
    }
    files
}
