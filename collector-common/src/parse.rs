//! Pure readers of bytes that somebody else wrote. Each takes bytes or text and gives a value; none does I/O, and none
//! can panic on any input.

pub mod journal;

pub mod login;

pub mod syslog;
