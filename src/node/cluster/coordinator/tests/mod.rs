//! Reads and writes at their levels, with whole nodes.

mod bad_disk;
mod clears;
mod copies;
mod forwarding;
mod hanging_disk;
mod moving;
mod paging;
mod readers;
mod reads;
mod series;
