//! Speaks gRPC to clients and turns each call into one message to the broker, in the name of the client that the broker itself
//! found out. Holds no right but its listening sockets and the way to the broker.
//!
//! * [`session`]: one pool of broker sessions for each client connection.
//! * [`services`]: the methods of the API; each is one or a few broker requests.
//! * [`convert`]: API messages from and to the broker's, with validation.
//! * `deadline`: when calls and streams are over.
//! * `metrics`: counters of all machines, for monitoring systems.
//! * [`status`]: refusals as gRPC status with details.
#![forbid(unsafe_code)]

mod acquire;
pub mod convert;
mod deadline;
mod incoming;
mod limits;
mod logs;
mod metrics;
mod relay;
mod serve;
pub mod services;
pub mod session;
pub mod status;
mod tls;
mod told;
mod uploads;

pub use acquire::Acquired;
pub use serve::{over_local, serve};
pub use session::BrokerAt;
