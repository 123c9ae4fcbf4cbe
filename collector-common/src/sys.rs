//! Safe surfaces over system calls: the only place in the project with `unsafe`.
#![allow(unsafe_code)]

pub mod audit;
pub mod connector;
pub mod inotify;
pub mod memory;
pub mod netlink;
pub mod readiness;
pub mod scheduling;
