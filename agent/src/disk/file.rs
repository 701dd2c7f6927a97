//! A file or block device as a disk.
