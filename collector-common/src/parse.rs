//! Pure readers of bytes that somebody else wrote. Each takes bytes or text and gives a value; none does I/O, and none
//! can panic on any input.

pub mod audit_control;
pub mod audit_record;
pub mod authorized_keys;
pub mod cmdline;
pub mod cn_proc;
pub mod exec_record;
pub mod inet_diag;
pub mod inet_socket;
pub mod journal;
pub mod listen_record;
pub mod login;
pub mod passwd;
pub mod proc_net;
pub mod proc_pid;
pub mod sshd_config;
pub mod sudoers;
pub mod syslog;
pub mod userdb;
pub mod utmp;
