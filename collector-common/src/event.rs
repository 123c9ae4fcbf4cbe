//! The event model and its bytes on the wire.
//!
//! The published schema (Azure-IoT-Security `security_message`, version 1.0) has a message with four root keys, events
//! with nine keys each and payload items; the investigation guide reads one flat `EventDetails` object per item. Key
//! order and spelling are part of the contract, because the guide searches the text of `EventDetails`.

pub mod kind;
pub mod payload;
pub mod wire;
