//! The portable transport: FUSE files, and a loop device for mounting.
