//! The broker over real sockets, with helpers that remember instead of acting: for faults and for hostile frontends. What the suite
//! really does is tested end to end, with the real helpers.

mod abilities;
mod access;
mod changes;
mod db;
mod faults;
mod fetches;
mod hardware;
mod hostile;
mod images;
mod objects;
mod places;
mod recorded;
mod renames;
mod repeats;
mod requests;
mod resize;
mod runner;
mod samples;
mod services;
mod stats;
mod stops;
mod stress;
mod subnets;
mod suite;
mod tunnels;
mod upkeep;
mod users;
mod world;
