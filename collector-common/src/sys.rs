//! Safe surfaces over system calls: the only place in the project with `unsafe`.
#![allow(unsafe_code)]

pub mod inotify;
